"""What a sidecar says of texts, seeds and settings in workflows as people build them, run by ComfyUI itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.sidecar import UNKNOWN, text_sha256

from .graphs import BENIGN, MEMORIZED, demo, given, keep, links, ours, part, ran, sampler, with_check
from .harness import Comfy
from .results import node
from .saving import AGAINST, OTHER, against, saved, texts, told, words

pytestmark = pytest.mark.usefixtures("output")


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
    changes = {"report": ["mend", 3]} | changes
    return saved(comfy, prompt, **changes)


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
