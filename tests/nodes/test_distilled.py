"""Distilled models: told their guidance, sampled without, or in a few steps. All are judged, and mitigated."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser

from . import models
from .graphs import complaint, keep, links, ours, ran, report_of, sampler, tiny, with_check
from .harness import Comfy
from .results import node
from .test_families import calibrated, folder, heat
from .test_gate import made

__all__ = ["folder"]
pytestmark = pytest.mark.usefixtures("folder")
WAYS = ("flux", "schnell", "lcm")


def distilled(comfy: Comfy, way: str) -> dict[str, Any]:
    """A tiny model; "lcm" is one of Stable Diffusion that is sampled in a few steps."""
    if way != "lcm":
        return tiny(comfy, way)
    prompt = tiny(comfy, "eps")
    prompt["first"] = prompt["load"]
    prompt["few"] = node("ModelSamplingDiscrete", model=["first", 0], sampling="lcm", zsnr=False)
    prompt["load"] = node("TestBoth", model=["few", 0], clip=["first", 1])
    return prompt


class Both:
    """The model of one node and the CLIP of another, as one node."""

    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "give"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",)}}

    def give(self, model: Any, clip: Any) -> tuple[Any, Any]:
        return model, clip


@pytest.fixture(autouse=True)
def _both(comfy: Comfy) -> None:
    comfy.nodes.NODE_CLASS_MAPPINGS["TestBoth"] = Both


@contextmanager
def told() -> Iterator[list[float | None]]:
    """What networks of Flux are told as their guidance, row by row."""
    from comfy.ldm.flux.model import Flux

    own, seen = Flux.forward, []

    def forward(self: Any, x: Any, *arguments: Any, **options: Any) -> Any:
        guidance = options.get("guidance")
        seen.extend([None] * len(x) if guidance is None else guidance.expand(len(x)).tolist())
        return own(self, x, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flux, "forward", forward)
        yield seen


def guided(comfy: Comfy, prompt: dict[str, Any], scale: float) -> dict[str, Any]:
    """The prompt, whose words come with another guidance."""
    prompt["words"] = prompt["text"]
    prompt["text"] = node("FluxGuidance", conditioning=["words", 0], guidance=scale)
    return prompt


@pytest.mark.parametrize("way", WAYS)
def test_a_calibrated_check_has_a_verdict(comfy: Comfy, way: str):
    prompt = calibrated(comfy, distilled(comfy, way))
    found = []
    for number in range(6):
        prompt["text"] = node("TestConditioning", kind="eps" if way == "lcm" else way, number=number)
        report = report_of(comfy, with_check(comfy, prompt, draws=1))
        assert report["reference"] == "empty prompt" and report["reason"] is None
        assert (report["verdict"] == "memorized") == (report["p_value"] <= report["alpha"])
        found.append(report["score"])
    assert len(set(found)) == 6


@pytest.mark.parametrize("scale", [2.5, 3.5, 30.0])
def test_both_branches_are_asked_at_the_models_own_guidance(comfy: Comfy, scale: float):
    """As a calibration is, whatever the conditioning says."""
    plain = report_of(comfy, with_check(comfy, calibrated(comfy, tiny(comfy, "flux")), draws=1))
    prompt = guided(comfy, tiny(comfy, "flux"), scale)
    with told() as seen:
        result = ran(comfy, with_check(comfy, prompt, draws=1))
    report, *_, text = result.outputs["check"]
    assert seen == [3.5, 3.5]
    assert {**report, "note": None} == plain and plain["verdict"] != "uncalibrated" and plain["note"] is None
    if scale == 3.5:
        assert report["note"] is None
    else:
        assert "judged at the model's default guidance, 3.5" in report["note"]
        assert f"says guidance {scale:g}" in report["note"] and report["note"] in text


def test_a_conditioning_without_guidance_is_told_of(comfy: Comfy):
    prompt = tiny(comfy, "flux")
    prompt["words"] = prompt["text"]
    prompt["text"] = node("FluxDisableGuidance", conditioning=["words", 0])
    assert "the conditioning says no guidance" in report_of(comfy, with_check(comfy, prompt))["note"]


@pytest.mark.parametrize(("kind", "own"), [("flux2", "3.5"), ("hunyuan-distilled", "6"), ("chroma", "0")])
def test_each_family_has_a_default(kind: str, own: str):
    ((text, options),) = models.conditioning(kind, 1)
    denoiser = ComfyDenoiser(models.model(kind), like=[[text, options | {"guidance": 4.25}]])
    assert denoiser.note is not None and f"guidance, {own}, as" in denoiser.note and "4.25" in denoiser.note
    assert ComfyDenoiser(denoiser.model, like=[[text, {}]]).note is None


@pytest.mark.parametrize("kind", ["schnell", "klein", "eps", "hunyuan"])
def test_a_network_that_is_told_none_needs_no_note(kind: str):
    ((text, options),) = models.conditioning(kind, 1)
    assert ComfyDenoiser(models.model(kind), like=[[text, options | {"guidance": 4.25}]]).note is None


def test_several_texts_may_come_with_their_own(comfy: Comfy):
    prompt = guided(comfy, tiny(comfy, "flux"), 3.5)
    prompt["other"] = node("FluxGuidance", conditioning=["words", 0], guidance=9.0)
    prompt["both"] = node("ConditioningCombine", conditioning_1=["text", 0], conditioning_2=["other", 0])
    with told() as seen:
        report = report_of(comfy, with_check(comfy, prompt, draws=1, positive=["both", 0]))
    assert set(seen) == {3.5} and "says guidance 9" in report["note"]


@pytest.mark.parametrize("way", WAYS)
def test_the_best_seed_is_found(comfy: Comfy, way: str):
    prompt = calibrated(comfy, distilled(comfy, way))
    prompt["noise"] = ours(comfy, "GuardedNoise", **links(prompt), noise_seed=40)
    noise, seed, text = ran(comfy, prompt | {"kept": keep("noise", 1)}).outputs["noise"]
    assert noise.seed == seed and text.startswith(f"seed {seed}: score ") and "\n" not in text


def test_guarded_noise_tells_of_another_guidance(comfy: Comfy):
    prompt = guided(comfy, calibrated(comfy, tiny(comfy, "flux")), 2.5)
    prompt["noise"] = ours(comfy, "GuardedNoise", **links(prompt), noise_seed=40)
    text = ran(comfy, prompt | {"kept": keep("noise", 1)}).outputs["noise"][2]
    assert text.splitlines()[1:] == [report_of(comfy, with_check(comfy, prompt))["note"]]


@pytest.mark.parametrize("way", WAYS)
def test_a_conditioning_is_mitigated(comfy: Comfy, way: str):
    prompt = calibrated(comfy, distilled(comfy, way))
    if way == "flux":
        prompt = guided(comfy, prompt, 2.5)
    prompt["mend"] = ours(comfy, "MitigateConditioning", **links(prompt), when="always")
    result = ran(comfy, prompt | {"kept": keep("mend")})
    (before, after), report = (result.outputs[name][0] for name in ("text", "mend")), result.outputs["mend"][1]
    about = report["mitigation"]
    assert about["method"] == "embed" and about["score_after"] < about["score_before"]
    if way == "flux":  # what is sampled is told what the user chose
        assert "judged at" in report["note"] and after[0][1]["guidance"] == before[0][1]["guidance"] == 2.5
    assert about["held"] == (not torch.equal(after[0][0], before[0][0]))


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_is_rewritten(comfy: Comfy, way: str):
    prompt = calibrated(comfy, distilled(comfy, way))
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    prompt["mend"] = ours(comfy, "RewritePrompt", **inputs, text="a lighthouse in the fog", when="always")
    text, _, _, report = ran(comfy, prompt | {"kept": keep("mend")}).outputs["mend"]
    assert report["mitigation"]["method"] == "rewrite" and report["mitigation"]["score_before"] is not None
    assert (text != "a lighthouse in the fog") == report["mitigation"]["held"]


@pytest.mark.parametrize("way", WAYS)
def test_a_gate_lets_the_branch_pass(comfy: Comfy, way: str):
    prompt = with_check(comfy, calibrated(comfy, distilled(comfy, way)), draws=1)
    inputs = {"value": ["text", 0], "report": ["check", 0], "policy": "block if memorized"}
    prompt["gate"] = ours(comfy, "MemorizationGate", **inputs)
    prompt["sample"] = sampler(positive=["gate", 0], cfg=1.0)
    result = ran(comfy, prompt | {"end": keep("sample")})
    passes = result.outputs["check"][0]["verdict"] == "clear"
    assert ("sample" in made(result)) == passes
    if passes:
        assert result.outputs["sample"][0]["samples"].isfinite().all()


def test_a_map_is_drawn_of_an_lcm_image(comfy: Comfy):
    _, mask, whole, share, *_ = heat(comfy, "eps", distilled(comfy, "lcm"))
    assert mask.any() and whole.isfinite().all() and 0 < share < 1


def test_lcm_starts_where_its_sampler_does(comfy: Comfy):
    """At the last of its own fifty levels, which is the noisiest of all thousand."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model = models.model("eps")
    few = ComfyDenoiser(ModelSamplingDiscrete().patch(model, "lcm", False)[0])
    sampling = few.model.get_model_object("model_sampling")
    level = few.levels.pure_noise
    assert float(level.sigma / level.alpha) == pytest.approx(float(sampling.sigma_max), rel=1e-5)
    assert int(sampling.timestep(sampling.sigma_max)) == 999
    assert few.fingerprint != ComfyDenoiser(model).fingerprint


def test_a_calibration_of_the_undistilled_model_is_not_used(comfy: Comfy, folder: Path):
    calibrated(comfy, tiny(comfy, "eps"))
    prompt = distilled(comfy, "lcm")
    assert report_of(comfy, with_check(comfy, prompt, draws=1))["verdict"] == "uncalibrated"
    name = next(folder.glob("*.json")).name
    line = complaint(comfy, with_check(comfy, prompt, draws=1, calibration=name))
    assert "another reference: empty branch, not empty prompt" in line


def test_a_mean_flow_network_is_asked_for_its_velocity():
    """It is told where a step ends; in the same place for every row, whichever share the call."""
    asked = ComfyDenoiser(models.model("hunyuan-distilled"))
    ends: list[float] = []
    network = asked.model.model.diffusion_model
    own = network.time_r_in.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        ends.append(float(x.flatten()[0]))
        return own(x)

    network.time_r_in.forward = forward
    x = torch.randn(2, 64, 8, 8)
    for times in ([1.0], [1.0, 0.4]):
        condition = asked.read(models.conditioning("hunyuan-distilled", 1))[[0] * len(times)]
        ends.clear()
        asked.predict(x[: len(times)], asked.levels.timestep(torch.tensor(times)), condition)
        # the first number of the embedding is the cosine of a thousand times the end
        expected = [float(torch.tensor(1000 * time).cos()) for time in times]
        assert ends == pytest.approx(expected, abs=1e-2)
