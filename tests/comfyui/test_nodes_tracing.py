"""What a sidecar says of texts, seeds and settings in workflows as people build them, run by ComfyUI itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.sidecar import UNKNOWN, read_statement, sidecar_path, text_sha256

from .graphs import BENIGN, MEMORIZED, demo, given, keep, links, ours, part, ran, sampler, with_check
from .harness import Comfy
from .results import node

OTHER = "a cat on a roof"
AGAINST = "blurry"

pytestmark = pytest.mark.usefixtures("output")


def words(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", clip=["load", 1], text=text)


def saved(comfy: Comfy, prompt: dict[str, Any], latent: str = "sampler", **changes: Any) -> dict[str, Any]:
    return {
        "sampler": sampler(),
        "decode": node("VAEDecode", samples=[latent, 0], vae=["load", 2]),
        "save": ours(comfy, "SaveImage", images=["decode", 0], filename_prefix="made", **changes),
    } | prompt


def told(output: Path, name: str = "made_00001_.png") -> dict[str, Any]:
    return read_statement(sidecar_path(output / name))["predicate"]


def texts(comfy: Comfy, output: Path, prompt: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    """The prompt and the negative one that the sidecar tells."""
    ran(comfy, saved(comfy, prompt, **changes))
    said = told(output)["prompt"]
    return said["original"], said["negative"]


def against(text: str = AGAINST) -> dict[str, Any]:
    """The built-in model with another negative prompt."""
    return demo(BENIGN) | {"empty": words(text)}


def both(name: str, **inputs: Any) -> dict[str, Any]:
    """A node that takes both conditionings and gives both, in front of the sampler."""
    sides = {"positive": ["text", 0], "negative": ["empty", 0]}
    changed = {"positive": ["both", 0], "negative": ["both", 1]}
    return {"both": node(name, **sides | inputs), "sampler": sampler(**changed)}


class Swap:
    """A pack's own node, whose outputs stand in another order than its inputs."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("negative", "positive")
    FUNCTION = "swap"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}}

    def swap(self, positive: Any, negative: Any) -> tuple[Any, Any]:
        return negative, positive


class Either(Swap):
    """One of two conditionings; the workflow does not tell which."""

    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("out",)
    FUNCTION = "choose"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("CONDITIONING",), "b": ("CONDITIONING",)}}

    def choose(self, a: Any, b: Any) -> tuple[Any]:
        return (b,)


class Cards:
    """Texts that only the run knows, as of a wildcard pack: one, or a list."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "draw"
    CATEGORY = "tests"
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING",), "count": ("INT",)}}

    def draw(self, text: str, count: int) -> tuple[list[str]]:
        return ([text.replace("__animal__", animal) for animal in ("horse", "fish")[:count]],)


@pytest.fixture(autouse=True)
def _nodes(comfy: Comfy) -> None:
    comfy.nodes.NODE_CLASS_MAPPINGS.update(TestSwap=Swap, TestEither=Either, TestCards=Cards)


def test_both_sides_of_a_controlnet(comfy: Comfy, output: Path):
    net = {"net": given(comfy, None), "hint": given(comfy, torch.zeros(1, 64, 64, 3))}
    inputs = {
        "control_net": ["net", 0],
        "image": ["hint", 0],
        "strength": 0.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    prompt = against() | net | both("ControlNetApplyAdvanced", **inputs)
    assert texts(comfy, output, prompt) == (BENIGN, AGAINST)


def test_both_sides_behind_several_nodes(comfy: Comfy, output: Path):
    """Also where a later one has them in another order."""
    prompt = against() | both("TestSwap")
    prompt["late"] = node("ConditioningSetTimestepRange", conditioning=["both", 0], start=0.0, end=1.0)
    prompt["sampler"] = sampler(positive=["both", 1], negative=["late", 0])
    assert texts(comfy, output, prompt) == (BENIGN, AGAINST)


def test_a_latent_that_comes_with_conditionings(comfy: Comfy, output: Path):
    pixels = {"pixels": given(comfy, torch.zeros(1, 64, 64, 3)), "mask": given(comfy, torch.ones(1, 64, 64))}
    inputs = {"vae": ["load", 2], "pixels": ["pixels", 0], "mask": ["mask", 0], "noise_mask": False}
    prompt = against() | pixels | both("InpaintModelConditioning", **inputs)
    assert texts(comfy, output, prompt) == (BENIGN, AGAINST)


AREA = {"width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("ConditioningSetArea", {"conditioning": ["text", 0], **AREA}, BENIGN),
        ("ConditioningZeroOut", {"conditioning": ["text", 0]}, ""),
        ("FluxGuidance", {"conditioning": ["text", 0], "guidance": 2.5}, BENIGN),
        ("ConditioningCombine", {"conditioning_1": ["more", 0], "conditioning_2": ["text", 0]}, f"{OTHER}\n{BENIGN}"),
        ("ConditioningConcat", {"conditioning_to": ["text", 0], "conditioning_from": ["text", 0]}, BENIGN),
        (
            "ConditioningAverage",
            {"conditioning_to": ["text", 0], "conditioning_from": ["more", 0], "conditioning_to_strength": 0.5},
            f"{BENIGN}\n{OTHER}",
        ),
        ("ComfySwitchNode", {"switch": True, "on_true": ["more", 0], "on_false": ["text", 0]}, OTHER),
        ("ComfySwitchNode", {"switch": ["flag", 0], "on_true": ["more", 0], "on_false": ["text", 0]}, BENIGN),
        ("TestEither", {"a": ["more", 0], "b": ["text", 0]}, UNKNOWN),
        ("TestEither", {"a": ["text", 0], "b": ["text", 0]}, BENIGN),
        ("TestGiven", None, UNKNOWN),
    ],
)
def test_the_prompt_behind_a_conditioning(comfy: Comfy, output: Path, kind: str, inputs: Any, expected: str):
    prompt = against() | {"more": words(OTHER), "flag": node("PrimitiveBoolean", value=False)}
    if inputs is None:
        value = ran(comfy, prompt | {"kept": keep("text")}).outputs["text"][0]
        prompt["changed"] = given(comfy, value)
    else:
        prompt["changed"] = node(kind, **inputs)
    prompt["sampler"] = sampler(positive=["changed", 0])
    assert texts(comfy, output, prompt) == (expected, AGAINST)


STRINGS = {
    "primitive": node("PrimitiveStringMultiline", value=BENIGN),
    "concatenate": node("StringConcatenate", string_a="a cat", string_b=["tail", 0], delimiter=" on "),
    "replace": node("StringReplace", string="my __animal__", find="__animal__", replace=["tail", 0]),
    "regex": node(
        "RegexReplace",
        string="a (cat)",
        regex_pattern=r"\(.*\)",
        replace="dog",
        case_insensitive=True,
        multiline=False,
        dotall=False,
        count=0,
    ),
    "case": node("CaseConverter", string="A Cat", mode="UPPERCASE"),
    "trim": node("StringTrim", string="  a cat ", mode="Both"),
    "format": node("StringFormat", f_string="{a} of {b}", **{"values.a": "cats", "values.b": ["number", 0]}),
    "chain": node("StringConcatenate", string_a=["inner", 0], string_b="!", delimiter=""),
}


@pytest.mark.parametrize("name", STRINGS)
def test_text_nodes_are_told_as_they_come_out(comfy: Comfy, output: Path, name: str):
    prompt = demo() | {
        "tail": node("PrimitiveString", value="a roof"),
        "number": node("PrimitiveInt", value=3),
        "inner": node("StringReplace", string="red", find="red", replace="blue"),
        "made": STRINGS[name],
        "text": words(["made", 0]),
        "kept": keep("made"),
    }
    made = ran(comfy, saved(comfy, prompt)).outputs["made"][0]
    assert isinstance(made, str) and told(output)["prompt"]["original"] == made


def test_what_only_the_run_knows_is_unknown(comfy: Comfy, output: Path):
    """And never the text as it was before."""
    cards = {"cards": node("TestCards", text="a __animal__", count=1), "text": words(["cards", 0])}
    assert texts(comfy, output, demo() | cards) == (UNKNOWN, "")
    joined = {"joined": node("StringConcatenate", string_a=["cards", 0], string_b="x", delimiter="")}
    ran(comfy, saved(comfy, demo() | cards | joined | {"text": words(["joined", 0])}, prompts="hash"))
    said = told(output, "made_00002_.png")["prompt"]
    assert said["original"] == UNKNOWN and said["negative"] == text_sha256("")
    broken = {"broken": node("StringFormat", f_string="{nothing}", **{"values.a": "x"})}
    graph = part(comfy, "nodes.graph").Graph(broken)
    assert graph.value(["broken", 0]) == UNKNOWN


def test_a_check_of_an_unknown_text_names_none(comfy: Comfy, output: Path):
    cards = {"cards": node("TestCards", text="a __animal__", count=1), "text": words(["cards", 0])}
    prompt = with_check(comfy, demo() | cards)
    result = ran(comfy, saved(comfy, prompt, report=["check", 0]))
    assert result.outputs["check"][0]["prompt"] is None and told(output)["prompt"]["original"] == UNKNOWN


def rewriting(comfy: Comfy, text: Any, **changes: Any) -> dict[str, Any]:
    prompt = demo()
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    prompt["mend"] = ours(comfy, "RewritePrompt", **inputs, text=text)
    prompt["sampler"] = sampler(positive=["mend", 1])
    return saved(comfy, prompt, **{"report": ["mend", 3]} | changes)


def test_each_image_of_a_list_is_told_its_own_prompt(comfy: Comfy, output: Path):
    """As it was before it was rewritten, whatever gave it."""
    prompt = rewriting(comfy, ["cards", 0])
    prompt["cards"] = node("TestCards", text=f"{MEMORIZED} __animal__", count=2)
    result = ran(comfy, prompt)
    for number, (animal, text) in enumerate(zip(("horse", "fish"), result.outputs["mend"][0], strict=True), 1):
        said = told(output, f"made_0000{number}_.png")["prompt"]
        assert said["original"] == f"{MEMORIZED} {animal}"
        assert said["rewritten"] == (None if text == said["original"] else text)


@pytest.mark.parametrize("way", ["text", "gate"])
def test_a_rewritten_prompt_on_its_way(comfy: Comfy, output: Path, way: str):
    prompt = rewriting(comfy, MEMORIZED)
    if way == "text":
        prompt["text"] = words(["mend", 0])
        prompt["sampler"] = sampler()
    else:
        prompt["gate"] = ours(comfy, "MemorizationGate", value=["mend", 1], report=["mend", 3])
        prompt["sampler"] = sampler(positive=["gate", 0])
    result = ran(comfy, prompt)
    said = told(output)["prompt"]
    assert (said["original"], said["rewritten"]) == (MEMORIZED, result.outputs["mend"][0])


def test_without_its_report_the_rewritten_prompt_is_unknown(comfy: Comfy, output: Path):
    prompt = rewriting(comfy, MEMORIZED)
    del prompt["save"]["inputs"]["report"]
    ran(comfy, prompt)
    said = told(output)
    assert said["prompt"]["original"] == MEMORIZED and said["sampling"]["rewritten prompt"] == UNKNOWN


def advanced(latent: str, **changes: Any) -> dict[str, Any]:
    own = sampler(latent_image=[latent, 0])["inputs"]
    known = {key: own[key] for key in own if key not in ("seed", "denoise")}
    return node("KSamplerAdvanced", **known | {"return_with_leftover_noise": "disable"} | changes)


def test_two_stages(comfy: Comfy, output: Path):
    """The second adds no noise: its seed does nothing."""
    first = {"add_noise": "enable", "noise_seed": 11, "cfg": 7.0, "start_at_step": 0, "end_at_step": 1}
    second = {"add_noise": "disable", "noise_seed": 22, "cfg": 2.0, "start_at_step": 1, "end_at_step": 9}
    prompt = demo(BENIGN) | {
        "first": advanced("latent", **first | {"return_with_leftover_noise": "enable"}),
        "second": advanced("first", **second),
    }
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    settings = said["sampling"]
    assert said["seed"] == "11" and (settings["cfg"], settings["end_at_step"], settings["add_noise"]) == (
        7.0,
        1,
        "enable",
    )
    assert (settings["stage 2 cfg"], settings["stage 2 start_at_step"]) == (2.0, 1) and "stage 2 seed" not in settings
    assert said["prompt"]["original"] == BENIGN


def test_a_second_pass_at_a_larger_size(comfy: Comfy, output: Path):
    """With a prompt, a seed and a strength of its own, and a detour over pixels."""
    prompt = demo(BENIGN) | {
        "pixels": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "larger": node("ImageScaleBy", image=["pixels", 0], upscale_method="nearest-exact", scale_by=2.0),
        "again": node("VAEEncode", pixels=["larger", 0], vae=["load", 2]),
        "more": words(OTHER),
        "second": sampler(latent_image=["again", 0], positive=["more", 0], seed=9, denoise=0.5),
    }
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    assert (said["seed"], said["sampling"]["denoise"]) == ("7", 1.0)
    assert (said["sampling"]["stage 2 seed"], said["sampling"]["stage 2 denoise"]) == ("9", 0.5)
    assert said["prompt"]["original"] == f"{BENIGN}\n{OTHER}"


def custom(guider: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "noise": node("RandomNoise", noise_seed=5),
        "chosen": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1.0),
        "guider": guider,
        "sampler": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["chosen", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
    } | changes


def test_both_prompts_and_scales_of_a_double_guider(comfy: Comfy, output: Path):
    scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 5.0, "style": "regular"}
    conditionings = {"cond1": ["text", 0], "cond2": ["more", 0], "negative": ["empty", 0]}
    guider = node("DualCFGGuider", model=["load", 0], **conditionings, **scales)
    prompt = against() | {"more": words(OTHER)} | custom(guider)
    assert texts(comfy, output, prompt) == (f"{BENIGN}\n{OTHER}", AGAINST)
    said = told(output)
    assert said["sampling"] == {"sampler_name": "euler", "scheduler": "normal", "steps": 2, "denoise": 1.0} | scales
    assert said["seed"] == "5"


def test_the_guidance_that_is_handed_to_a_model(comfy: Comfy, output: Path):
    """The last one on the way counts; a number may come from elsewhere."""
    prompt = against() | {
        "number": node("PrimitiveFloat", value=2.5),
        "early": node("FluxGuidance", conditioning=["text", 0], guidance=9.0),
        "late": node("FluxGuidance", conditioning=["early", 0], guidance=["number", 0]),
    }
    prompt |= custom(node("BasicGuider", model=["load", 0], conditioning=["late", 0]))
    assert texts(comfy, output, prompt) == (BENIGN, None)
    assert told(output)["sampling"]["guidance"] == 2.5 and "cfg" not in told(output)["sampling"]


def test_two_samplers_on_parts_of_one_schedule(comfy: Comfy, output: Path):
    guider = node("CFGGuider", model=["load", 0], positive=["text", 0], negative=["empty", 0], cfg=["number", 0])
    prompt = against() | custom(guider, split=node("SplitSigmas", sigmas=["sigmas", 0], step=1))
    inputs = prompt["sampler"]["inputs"]
    prompt["none"] = node("DisableNoise")
    prompt["number"] = node("PrimitiveFloat", value=3.0)
    late = {"noise": ["none", 0], "sigmas": ["split", 1], "latent_image": ["sampler", 0]}
    prompt["second"] = node("SamplerCustomAdvanced", **inputs | late)
    prompt["sampler"] = node("SamplerCustomAdvanced", **inputs | {"sigmas": ["split", 0]})
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    assert said["seed"] == "5" and said["sampling"]["cfg"] == said["sampling"]["stage 2 cfg"] == 3.0
    assert said["sampling"]["step"] == 1 and "stage 2 seed" not in said["sampling"]
    assert (said["prompt"]["original"], said["prompt"]["negative"]) == (BENIGN, AGAINST)


def test_numbers_that_only_the_run_knows_are_unknown(comfy: Comfy, output: Path):
    prompt = demo(BENIGN) | {"number": given(comfy, 2), "sampler": sampler(seed=["number", 0], steps=["number", 0])}
    ran(comfy, saved(comfy, prompt))
    said = told(output)
    assert said["seed"] == said["sampling"]["steps"] == UNKNOWN and said["sampling"]["cfg"] == 4.0


def test_numbers_from_nodes_are_told(comfy: Comfy, output: Path):
    prompt = demo(BENIGN) | {"number": node("SeedNode", seed=2), "sampler": sampler(seed=["number", 0])}
    ran(comfy, saved(comfy, prompt))
    assert told(output)["seed"] == "2"


def test_images_that_nobody_sampled_have_no_prompt(comfy: Comfy, output: Path):
    prompt = {"images": given(comfy, torch.zeros(1, 8, 8, 3))}
    prompt["save"] = ours(comfy, "SaveImage", images=["images", 0], filename_prefix="made")
    ran(comfy, prompt)
    said = told(output)
    assert said["seed"] is None and said["sampling"] == {} and said["prompt"]["original"] is None
