"""Memorization Check with all that a conditioning may hold besides one text."""

import pytest
import torch

from . import models
from .graphs import BENIGN, MEMORIZED, demo, given, keep, links, ours, ran, report_of, tiny, with_check, wordless
from .harness import Comfy
from .results import node

LONG = " and ".join([MEMORIZED] * 15)  # more than the 75 words of one part


def score(comfy: Comfy, prompt: dict, **changes) -> float:
    report = report_of(comfy, with_check(comfy, prompt, calibration="none", **changes))
    assert report["verdict"] == "uncalibrated"
    return report["score"]


def test_a_prompt_combined_with_itself_is_that_prompt(comfy: Comfy):
    twice = node("ConditioningCombine", conditioning_1=["text", 0], conditioning_2=["text", 0])
    prompt = demo() | {"both": twice}
    alone, together = (report_of(comfy, with_check(comfy, prompt, positive=[name, 0])) for name in ("text", "both"))
    assert together["verdict"] == "memorized" and together["prompt"] == MEMORIZED
    assert together["score"] == pytest.approx(alone["score"], abs=1e-4)


def test_two_prompts_share_their_guidance(comfy: Comfy):
    """Half of a memorized prompt's guidance and half of none: half the norm."""
    half = node("ConditioningCombine", conditioning_1=["text", 0], conditioning_2=["empty", 0])
    prompt = demo() | {"half": half}
    assert 2 * score(comfy, prompt, positive=["half", 0]) == pytest.approx(score(comfy, prompt), rel=1e-3)


def area(**changes) -> dict:
    own = {"width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}
    return node("ConditioningSetArea", conditioning=["text", 0], **own | changes)


def test_an_area_is_where_the_prompt_acts(comfy: Comfy):
    prompt = tiny(comfy, "eps") | {"latent": node("TestLatent", kind="eps", size=16)}
    plain = score(comfy, prompt)
    whole = prompt | {"area": area(width=128, height=128)}
    assert score(comfy, whole, positive=["area", 0]) == pytest.approx(plain, rel=1e-4)
    part = score(comfy, prompt | {"area": area(height=128)}, positive=["area", 0])
    assert 0.1 * plain < part < 0.95 * plain


def test_a_mask_is_where_the_prompt_acts(comfy: Comfy):
    mask = torch.zeros(1, 64, 64)
    prompt = tiny(comfy, "eps") | {"mask": given(comfy, mask)}
    prompt["masked"] = node(
        "ConditioningSetMask", conditioning=["text", 0], mask=["mask", 0], strength=1.0, set_cond_area="default"
    )
    plain = score(comfy, prompt)
    mask[:, :, :32] = 1.0
    assert 0.1 * plain < score(comfy, prompt, positive=["masked", 0]) < 0.95 * plain


def timed(start: float, end: float) -> dict:
    return node("ConditioningSetTimestepRange", conditioning=["text", 0], start=start, end=end)


@pytest.mark.parametrize("kind", ["eps", "sd3"])
def test_a_prompt_that_acts_from_the_start_counts(comfy: Comfy, kind: str):
    prompt = tiny(comfy, kind)
    for end in (1.0, 0.3):
        ranged = score(comfy, prompt | {"timed": timed(0.0, end)}, positive=["timed", 0])
        assert ranged == pytest.approx(score(comfy, prompt), rel=1e-4)


def test_a_later_prompt_does_not_hide_the_first(comfy: Comfy):
    """As in prompt scheduling: what acts at the first step is what is checked."""
    prompt = demo() | {
        "first": timed(0.0, 0.5),
        "words": node("CLIPTextEncode", clip=["load", 1], text=BENIGN),
        "later": timed(0.5, 1.0) | {"inputs": {"conditioning": ["words", 0], "start": 0.5, "end": 1.0}},
        "both": node("ConditioningCombine", conditioning_1=["later", 0], conditioning_2=["first", 0]),
    }
    found, alone = (report_of(comfy, with_check(comfy, prompt, positive=[name, 0])) for name in ("both", "text"))
    assert found["verdict"] == "memorized" and found["score"] == pytest.approx(alone["score"], abs=1e-4)


@pytest.mark.parametrize("kind", ["demo", "edm", "sd3"])
def test_a_prompt_that_is_not_there_at_first_gets_no_verdict(comfy: Comfy, kind: str):
    """Silence at the first step is no sign of a clear prompt."""
    prompt = (demo() if kind == "demo" else tiny(comfy, kind)) | {"late": timed(0.2, 1.0)}
    report = report_of(comfy, with_check(comfy, prompt, positive=["late", 0]))
    assert report["verdict"] == "not applicable" and "first step" in report["reason"]


def control(comfy: Comfy, push: float):
    """A ControlNet that adds a number in the middle of the network, and notes which texts it was asked for."""
    from comfy.controlnet import ControlBase

    class Control(ControlBase):
        seen: list[torch.Tensor]

        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            self.seen.append(cond["c_crossattn"].clone())
            ramp = torch.linspace(0, push, x_noisy.shape[-1] // 2)
            middle = ramp.expand(len(x_noisy), 2 * models.WIDTH, x_noisy.shape[-2] // 2, -1)
            return {"input": [], "middle": [middle.clone()], "output": []}

    made = Control()
    made.seen = []
    return made


def controlled(comfy: Comfy, prompt: dict, name: str, made) -> dict:
    """The conditioning of that node with a ControlNet, as Apply ControlNet leaves it."""
    text = ran(comfy, prompt | {"kept": keep(name)}).outputs[name][0]
    return given(comfy, [[words, {**options, "control": made}] for words, options in text])


def test_a_controlnet_acts_on_both_branches(comfy: Comfy):
    prompt, made = tiny(comfy, "eps"), control(comfy, 50.0)
    with_net = prompt | {"net": controlled(comfy, prompt, "text", made)}
    plain, found = score(comfy, prompt), score(comfy, with_net, positive=["net", 0])
    assert abs(found - plain) > 0.01 * plain
    texts = {tuple(row.flatten().tolist()) for batch in made.seen for row in batch}
    assert len(texts) == 2
    # were the empty prompt without it, guidance would hold what the ControlNet does
    empty = prompt | {"bare": wordless(comfy, prompt)}
    empty["net"] = controlled(comfy, empty, "bare", made)
    assert score(comfy, empty, positive=["net", 0]) < 1e-4 * plain


def test_a_prompt_of_several_parts_is_compared_with_the_empty_one(comfy: Comfy):
    result = ran(comfy, with_check(comfy, demo(LONG)))
    assert result.outputs["text"][0][0][0].shape[1] == 154
    report = result.outputs["check"][0]
    assert report["prompt"] == LONG and report["verdict"] in ("clear", "memorized")
    assert report["score"] > report_of(comfy, with_check(comfy, demo("")))["score"] + 1


def test_several_rows_are_judged_by_the_worst(comfy: Comfy):
    prompt = demo() | {"words": node("CLIPTextEncode", clip=["load", 1], text=BENIGN)}
    result = ran(comfy, prompt | {"a": keep("text"), "b": keep("words")})
    rows = torch.cat([result.outputs[name][0][0][0] for name in ("words", "text")])
    pooled = torch.cat([result.outputs[name][0][0][1]["pooled_output"] for name in ("words", "text")])
    prompt["rows"] = given(comfy, [[rows, {"pooled_output": pooled}]])
    report = report_of(comfy, with_check(comfy, prompt, positive=["rows", 0]))
    alone = report_of(comfy, with_check(comfy, prompt))
    assert report["verdict"] == "memorized" and report["score"] == pytest.approx(alone["score"], abs=1e-4)


@pytest.mark.parametrize("value", [[], "words", [[None, {}]], [[torch.zeros(2), {}]]])
def test_what_is_no_conditioning_is_refused_in_one_line(comfy: Comfy, value):
    result = comfy.run(with_check(comfy, demo() | {"text": given(comfy, value)}))
    assert "onditioning" in result.error.lower() and "\n" not in result.error


def test_texts_of_different_models_cannot_be_combined(comfy: Comfy):
    own, other = (models.conditioning(kind)[0] for kind in ("eps", "sdxl"))
    result = comfy.run(with_check(comfy, tiny(comfy, "eps") | {"text": given(comfy, [own, other])}))
    assert "different models" in result.error


def test_the_conditioning_is_left_as_it_was(comfy: Comfy):
    """The sampler gets the same one afterwards."""
    value = models.conditioning("sdxl", 3)
    text, pooled = value[0][0].clone(), value[0][1]["pooled_output"].clone()
    prompt = tiny(comfy, "sdxl") | {"text": given(comfy, value)}
    assert links(prompt)["positive"] == ["text", 0]
    score(comfy, prompt)
    assert torch.equal(value[0][0], text) and list(value[0][1]) == ["pooled_output"]
    assert torch.equal(value[0][1]["pooled_output"], pooled)


@pytest.mark.parametrize("kind", ["demo", "eps", "sd3"])
def test_a_conditioning_without_words_gets_no_verdict(comfy: Comfy, kind: str):
    """On a random model nothing and something differ as much as memorized and benign prompts do elsewhere."""
    prompt = demo() if kind == "demo" else tiny(comfy, kind)
    prompt["zero"] = node("ConditioningZeroOut", conditioning=["text", 0])
    report = report_of(comfy, with_check(comfy, prompt, positive=["zero", 0]))
    assert report["verdict"] == "not applicable" and "no words" in report["reason"]
    noise = ours(comfy, "GuardedNoise", **links(prompt) | {"positive": ["zero", 0]}, noise_seed=5)
    assert "no words" in ran(comfy, prompt | {"noise": noise, "kept": keep("noise")}).outputs["noise"][2]
    inputs = links(prompt) | {"positive": ["zero", 0]}
    prompt |= {"mend": ours(comfy, "MitigateConditioning", **inputs), "kept": keep("mend")}
    assert report_of(comfy, prompt, "mend", 1)["verdict"] == "not applicable"


def test_words_beside_none_and_the_empty_prompt_are_checked(comfy: Comfy):
    prompt = demo() | {"zero": node("ConditioningZeroOut", conditioning=["text", 0])}
    prompt["both"] = node("ConditioningCombine", conditioning_1=["text", 0], conditioning_2=["zero", 0])
    assert report_of(comfy, with_check(comfy, prompt, positive=["both", 0]))["score"] is not None
    assert report_of(comfy, with_check(comfy, prompt, positive=["empty", 0]))["verdict"] == "clear"
