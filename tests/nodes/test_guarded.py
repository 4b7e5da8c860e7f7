"""Guarded KSampler and Guarded Guider: what is sampled, what is stopped, and that off is as without them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from .graphs import BENIGN, MEMORIZED, STEPS, demo, given, keep, links, ours, part, ran, sampler, tiny
from .harness import Comfy
from .results import Result, node
from .saving import saved, told
from .test_gate import made

NAMES = ("latent", "report", "positive", "text")
NOTHING = "ExecutionBlocker"


def guarded(comfy: Comfy, prompt: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A Guarded KSampler with the settings of `sampler`."""
    own = links(prompt) | {"negative": ["empty", 0], "noise_seed": 7} | STEPS
    return prompt | {"guarded": ours(comfy, "GuardedKSampler", **own | changes), "end": keep("guarded", 3)}


def guider(comfy: Comfy, prompt: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A Guarded Guider, and what samples with it: the same as `sampler`."""
    own = links(prompt) | {"negative": ["empty", 0], "cfg": STEPS["cfg"]}
    return prompt | {
        "guarded": ours(comfy, "GuardedGuider", **own | changes),
        "noise": node("RandomNoise", noise_seed=7),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1.0),
        "sampled": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guarded", 0],
            sampler=["euler", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "a": keep("sampled"),
        "end": keep("guarded", 3),
    }


def values(result: Result) -> dict[str, Any]:
    return dict(zip(NAMES, result.outputs["guarded"], strict=True))


def plain(comfy: Comfy, prompt: dict[str, Any], **changes: Any) -> torch.Tensor:
    """What KSampler makes of the prompt."""
    return ran(comfy, prompt | {"a": sampler(**changes), "b": keep("a")}).outputs["a"][0]["samples"]


@pytest.mark.parametrize("policy", ["off", "warn"])
@pytest.mark.parametrize("kind", ["demo", "sd3"])
@pytest.mark.parametrize("make", [guarded, guider])
def test_what_passes_is_bit_for_bit_that_of_ksampler(comfy: Comfy, make: Any, kind: str, policy: str):
    comfy.fresh()
    prompt = demo(BENIGN, batch=3) if kind == "demo" else tiny(comfy, kind)
    result = ran(comfy, make(comfy, prompt, policy=policy))
    sampled = (values(result)["latent"] if make is guarded else result.outputs["sampled"][0])["samples"]
    assert torch.equal(sampled, plain(comfy, prompt))
    report = values(result)["report"]
    assert report is None if policy == "off" else report["verdict"] == ("clear" if kind == "demo" else "uncalibrated")
    assert values(result)["positive"] is result.outputs["text"][0]


def test_off_measures_nothing(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(part(comfy, "nodes.guarding"), "ComfyDenoiser", None)
    for make in (guarded, guider):
        found = values(ran(comfy, make(comfy, demo(), policy="off", check_seed=3)))
        assert found["report"] is None and found["text"].startswith("off")


@pytest.mark.parametrize("make", [guarded, guider])
def test_what_is_memorized_is_stopped_and_nothing_looks_failed(comfy: Comfy, output: Path, make: Any):
    comfy.fresh()
    prompt = make(comfy, demo(), policy="block")
    source = "guarded" if make is guarded else "sampled"
    prompt["decode"] = node("VAEDecode", samples=[source, 0], vae=["load", 2])
    prompt["save"] = node("SaveImage", images=["decode", 0], filename_prefix="guarded")
    result = comfy.run(prompt)
    assert result.ok and not result.named("execution_error") and not list(output.iterdir())
    assert not {"decode", "save", "sampled"} & made(result)
    found = values(result)
    assert type(found["latent"]).__name__ == NOTHING and found["report"]["verdict"] == "memorized"
    assert found["text"].startswith("Cryptomnesia made no image: the prompt is likely memorized")
    (shown,) = result.ui["guarded"]["cryptomnesia"]
    assert shown["state"] == "memorized" and "policy is block" in shown["stopped"]


@pytest.mark.parametrize("make", [guarded, guider])
@pytest.mark.parametrize("policy", ["rewrite", "embed"])
def test_what_is_memorized_is_mitigated(comfy: Comfy, make: Any, policy: str):
    comfy.fresh()
    prompt = make(comfy, demo(), policy=policy, fallback="block")
    found = values(ran(comfy, prompt))
    about = found["report"]["mitigation"]
    assert found["report"]["verdict"] == "clear" and about["method"] == policy and about["held"]
    assert about["original"] == MEMORIZED and (about["rewritten"] == MEMORIZED) == (policy == "embed")
    if policy == "rewrite":
        own = ran(comfy, demo(about["rewritten"]) | {"kept": keep("text")}).outputs["text"][0]
        assert torch.equal(found["positive"][0][0], own[0][0])
    if make is guarded:
        used = given(comfy, found["positive"])
        sampled = plain(comfy, demo() | {"used": used}, positive=["used", 0])
        assert torch.equal(found["latent"]["samples"], sampled)
        assert not torch.equal(sampled, plain(comfy, demo()))


def test_rewriting_keeps_what_else_the_conditioning_holds(comfy: Comfy):
    comfy.fresh()
    prompt = demo()
    prompt["late"] = node("ConditioningSetTimestepRange", conditioning=["text", 0], start=0.0, end=0.9)
    found = values(ran(comfy, guarded(comfy, prompt, policy="rewrite", positive=["late", 0])))
    assert found["report"]["mitigation"]["held"] and found["report"]["verdict"] == "clear"
    assert found["positive"][0][1]["end_percent"] == 0.9


def test_where_the_words_are_not_known_it_stays_flagged(comfy: Comfy):
    comfy.fresh()
    prompt = demo()
    value = ran(comfy, prompt | {"kept": keep("text")}).outputs["text"][0]
    prompt |= {"text": given(comfy, value)}
    found = values(ran(comfy, guarded(comfy, prompt, policy="rewrite")))
    assert found["report"]["verdict"] == "memorized" and "does not tell" in found["report"]["note"]
    stopped = values(comfy.run(guarded(comfy, prompt, policy="rewrite", fallback="block")))
    assert type(stopped["latent"]).__name__ == NOTHING and "did not help" in stopped["text"]


@pytest.mark.parametrize("unverified", ["as the policy says", "allow", "warn", "block"])
@pytest.mark.parametrize("policy", ["warn", "block"])
def test_what_could_not_be_checked(comfy: Comfy, policy: str, unverified: str):
    result = comfy.run(guarded(comfy, demo(), policy=policy, unverified=unverified, calibration="none"))
    stopped = unverified == "block" or (policy == "block" and unverified.startswith("as"))
    assert result.ok and (type(values(result)["latent"]).__name__ == NOTHING) == stopped
    assert values(result)["report"]["verdict"] == "uncalibrated" and "no calibration" in values(result)["text"]


def test_an_image_to_start_from_is_not_applicable(comfy: Comfy):
    latent = given(comfy, {"samples": torch.ones(1, 4, 16, 16)})
    found = values(ran(comfy, guarded(comfy, demo() | {"latent": latent}, denoise=0.5)))
    assert found["report"]["verdict"] == "not applicable" and "denoise is 0.5" in found["text"]
    sampled = plain(comfy, demo() | {"latent": latent}, denoise=0.5)
    assert torch.equal(found["latent"]["samples"], sampled)


def test_a_guider_that_samples_something_else_says_so(comfy: Comfy, caplog: pytest.LogCaptureFixture):
    other = {"other": node("EmptyLatentImage", width=128, height=64, batch_size=1)}
    prompt = guider(comfy, demo(BENIGN), policy="warn") | other
    prompt["sampled"]["inputs"]["latent_image"] = ["other", 0]
    ran(comfy, prompt)
    assert any("a latent of shape (4, 16, 32), not (4, 16, 16)" in line for line in caplog.messages)
    prompt["guarded"]["inputs"]["unverified"] = "block"
    assert "checked for something else" in (comfy.run(prompt).error or "")
    late = guider(comfy, demo(BENIGN), policy="block")
    late["sigmas"]["inputs"]["denoise"] = 0.3
    assert "part of the way" in (comfy.run(late).error or "")


def test_without_a_negative_it_is_basic_guider(comfy: Comfy):
    prompt = guider(comfy, demo(BENIGN), policy="warn")
    del prompt["guarded"]["inputs"]["negative"]
    found = ran(comfy, prompt).outputs["sampled"][0]["samples"]
    prompt["guarded"] = node("BasicGuider", model=["load", 0], conditioning=["text", 0])
    del prompt["end"]
    assert torch.equal(found, ran(comfy, prompt).outputs["sampled"][0]["samples"])


def test_a_conditioning_without_words_is_told(comfy: Comfy):
    prompt = demo() | {"zero": node("ConditioningZeroOut", conditioning=["text", 0])}
    found = values(ran(comfy, guarded(comfy, prompt, positive=["zero", 0])))
    assert found["report"]["verdict"] == "not applicable" and "holds no words" in found["text"]


@pytest.mark.parametrize("make", [guarded, guider])
def test_its_provenance_tells_the_prompt_before_and_after(comfy: Comfy, output: Path, make: Any):
    prompt = make(comfy, demo(), policy="rewrite")
    latent = "guarded" if make is guarded else "sampled"
    result = ran(comfy, saved(comfy, prompt, latent=latent, report=["guarded", 1]))
    about, said = values(result)["report"]["mitigation"], told(output)
    assert said["prompt"]["original"] == MEMORIZED and said["prompt"]["rewritten"] == about["rewritten"]
    assert said["seed"] == "7"
