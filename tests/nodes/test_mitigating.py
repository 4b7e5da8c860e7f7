"""Mitigate Conditioning and Rewrite Prompt on the built-in model."""

import numpy as np
import pytest
import torch

from cryptomnesia.demo.gallery import Gallery, rms

from .graphs import (
    BENIGN,
    MEMORIZED,
    demo,
    given,
    keep,
    links,
    ours,
    part,
    ran,
    report_of,
    sampler,
    values,
    with_check,
)
from .harness import Comfy
from .results import node

RECITED = 0.1  # root mean square distance to the training image
STEPS = {"steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}


def mitigating(comfy: Comfy, text: str = MEMORIZED, **changes) -> dict:
    prompt = demo(text)
    mend = ours(comfy, "MitigateConditioning", **links(prompt) | changes)
    return prompt | {"mend": mend, "kept": keep("mend")}


def rewriting(comfy: Comfy, text: str = MEMORIZED, **changes) -> dict:
    prompt = demo(text)
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    mend = ours(comfy, "RewritePrompt", **inputs | {"text": text} | changes)
    return prompt | {"mend": mend, "kept": keep("mend")}


def checked(comfy: Comfy, prompt: dict, output: int) -> dict:
    """A check on what the mending node puts out, on other noise."""
    return with_check(comfy, prompt, positive=["mend", output], check_seed=99)


def distance(comfy: Comfy, prompt: dict, positive: list) -> float:
    """Of the sampled image to the training image with the memorized caption."""
    prompt = prompt | {
        "sampled": sampler(positive=positive, **STEPS),
        "decode": node("VAEDecode", samples=["sampled", 0], vae=["load", 2]),
        "image": keep("decode"),
    }
    made = (np.asarray(ran(comfy, prompt).outputs["image"][0]) * 255).round().astype(np.uint8)
    gallery = Gallery.load()
    number = [caption.text for caption in gallery.captions].index(MEMORIZED)
    return float(rms(made, gallery.images[[number]], gallery.masks[[number]])[0, 0])


def test_the_original_reproduces_its_training_image(comfy: Comfy):
    assert distance(comfy, demo(), ["text", 0]) < RECITED


def test_an_embedding_is_mitigated(comfy: Comfy):
    comfy.fresh()
    prompt = mitigating(comfy)
    mended, report, text = ran(comfy, prompt).outputs["mend"]
    assert report["verdict"] == "clear" and report["mitigation"]["held"] and report["mitigation"]["method"] == "embed"
    assert report["prompt"] == MEMORIZED and "embed: held on fresh noise" in text and text.startswith("clear")
    assert report["mitigation"]["p_before"] <= 0.01 < report["mitigation"]["p_after"]
    assert report_of(comfy, checked(comfy, prompt, 0))["verdict"] == "clear"
    assert distance(comfy, prompt, ["mend", 0]) > 2 * RECITED
    assert mended[0][0].shape == (1, 77, 128) and "pooled_output" in mended[0][1]


def test_a_prompt_is_rewritten(comfy: Comfy):
    comfy.fresh()
    prompt = rewriting(comfy)
    text, _, changes, report = ran(comfy, prompt).outputs["mend"]
    assert text != MEMORIZED and len(set(text.split()) & set(MEMORIZED.split())) >= 3
    assert report["verdict"] == "clear" and report["prompt"] == text == report["mitigation"]["rewritten"]
    assert report["mitigation"]["original"] == MEMORIZED
    assert f"before: {MEMORIZED}\nafter:  {text}" in changes and " -> " in changes
    again = checked(comfy, prompt, 1)
    assert report_of(comfy, again)["verdict"] == "clear"
    assert distance(comfy, prompt, ["mend", 1]) > 2 * RECITED
    # what comes out is what CLIP Text Encode makes of the text
    encoded = ran(comfy, prompt | {"own": node("CLIPTextEncode", clip=["load", 1], text=text), "b": keep("own")})
    assert torch.equal(encoded.outputs["own"][0][0][0], encoded.outputs["mend"][1][0][0])


def test_a_benign_embedding_passes_as_it_is(comfy: Comfy):
    comfy.fresh()
    result = ran(comfy, mitigating(comfy, BENIGN))
    found, report, text = result.outputs["mend"]
    assert found is result.outputs["text"][0]
    assert report["verdict"] == "clear" and report["mitigation"] is None and "\nembed" not in text


def test_a_benign_prompt_passes_as_it_is(comfy: Comfy):
    text, encoded, _, report = ran(comfy, rewriting(comfy, BENIGN)).outputs["mend"]
    own = ran(comfy, demo(BENIGN) | {"kept": keep("text")}).outputs["text"][0]
    assert text == BENIGN and torch.equal(encoded[0][0], own[0][0])
    assert report["verdict"] == "clear" and report["mitigation"] is None


@pytest.mark.parametrize("make", [mitigating, rewriting])
def test_always_mends_what_is_not_flagged(comfy: Comfy, make):
    outputs = ran(comfy, make(comfy, BENIGN, when="always")).outputs["mend"]
    report = next(value for value in outputs if isinstance(value, dict))
    assert report["mitigation"]["p_before"] > 0.01 and report["verdict"] == "clear"


@pytest.mark.parametrize("make", [mitigating, rewriting])
def test_the_same_seed_gives_the_same(comfy: Comfy, make):
    found = []
    for _ in range(2):
        comfy.fresh()
        outputs = ran(comfy, make(comfy, check_seed=5)).outputs["mend"]
        found.append(next(value for value in outputs if isinstance(value, dict)))
    assert found[0] == found[1] and found[0]["mitigation"] is not None


@pytest.mark.parametrize(("make", "output"), [(mitigating, (0, 1)), (rewriting, (1, 3))])
def test_a_gate_lets_the_mitigated_prompt_pass(comfy: Comfy, make, output: tuple[int, int]):
    prompt = make(comfy)
    prompt["gate"] = node(
        "CryptomnesiaMemorizationGate",
        value=["mend", output[0]],
        report=["mend", output[1]],
        policy="block unless clear",
    )
    prompt["sampled"] = sampler(positive=["gate", 0])
    result = ran(comfy, prompt | {"end": keep("sampled")})
    assert not result.named("execution_error") and result.outputs["end"][0]["samples"].isfinite().all()


def test_areas_stay_when_an_embedding_is_mitigated(comfy: Comfy):
    prompt = mitigating(comfy, positive=["both", 0])
    whole = {"width": 1.0, "height": 1.0, "x": 0.0, "y": 0.0, "strength": 1.0}
    prompt["area"] = node("ConditioningSetAreaPercentage", conditioning=["text", 0], **whole)
    prompt["late"] = node("ConditioningSetTimestepRange", conditioning=["text", 0], start=0.0, end=0.9)
    prompt["both"] = node("ConditioningCombine", conditioning_1=["area", 0], conditioning_2=["late", 0])
    result = ran(comfy, prompt)
    before, (after, report, _) = result.outputs["both"][0], result.outputs["mend"]
    assert report["mitigation"]["held"] and report["verdict"] == "clear"
    for (old, kept), (new, options) in zip(before, after, strict=True):
        assert new.shape == old.shape and not torch.equal(new, old)
        assert list(sorted(options)) == list(sorted(kept))
        assert all(options[key] == kept[key] for key in kept if key != "pooled_output")
    assert result.outputs["both"][0][0][1]["area"] == ("percentage", 1, 1, 0, 0)


def test_several_rows_pass_and_stay_flagged(comfy: Comfy):
    value = ran(comfy, demo() | {"kept": keep("text")}).outputs["text"][0]
    rows = given(comfy, [[value[0][0].repeat(2, 1, 1), {}]])
    passed, report, text = ran(comfy, mitigating(comfy) | {"text": rows}).outputs["mend"]
    assert report["verdict"] == "memorized" and "one prompt is mitigated at a time" in text
    assert passed is values[rows["inputs"]["name"]]


@pytest.mark.parametrize("make", [mitigating, rewriting])
def test_off_passes_all_and_measures_nothing(comfy: Comfy, monkeypatch: pytest.MonkeyPatch, make):
    monkeypatch.setattr(part(comfy, "nodes.mitigating"), "Guard", None)
    result = ran(comfy, make(comfy, when="off"))
    outputs = result.outputs["mend"]
    own = ran(comfy, demo() | {"kept": keep("text")}).outputs["text"][0]
    if make is rewriting:
        text, positive, changes, report = outputs
        assert text == MEMORIZED and torch.equal(positive[0][0], own[0][0])
    else:
        positive, report, changes = outputs
        assert positive is result.outputs["text"][0]
    assert report is None and changes.startswith("off")
    assert result.ui["mend"]["cryptomnesia"][0]["state"] == "off"


@pytest.mark.parametrize("make", [mitigating, rewriting])
def test_where_a_check_is_not_applicable_all_passes(comfy: Comfy, make):
    latent = given(comfy, {"samples": torch.ones(1, 4, 16, 16)})
    result = ran(comfy, make(comfy) | {"latent": latent})
    report = next(value for value in result.outputs["mend"] if isinstance(value, dict))
    assert report["verdict"] == "not applicable"
    found = result.outputs["mend"][0]
    assert found == MEMORIZED if make is rewriting else found is result.outputs["text"][0]


def test_a_model_that_has_sampled_can_be_mitigated_and_samples_as_before(comfy: Comfy):
    """Its weights were made in inference mode, which no gradient passes."""
    comfy.fresh()
    prompt = demo() | {"sampled": sampler(), "end": keep("sampled")}
    before = ran(comfy, prompt).outputs
    mended = ran(comfy, mitigating(comfy, check_seed=1)).outputs
    after = ran(comfy, prompt).outputs
    assert mended["mend"][1]["verdict"] == "clear"
    assert before["load"][0] is mended["load"][0] is after["load"][0]
    assert before["sampled"][0]["samples"] is not after["sampled"][0]["samples"]  # sampled anew
    assert torch.equal(before["sampled"][0]["samples"], after["sampled"][0]["samples"])
