"""Guarded Noise: the seed it gives, the noise it gives, and what they do in ComfyUI's samplers."""

import numpy as np
import pytest
import torch

from .graphs import ENDING, STEPS, complaint, demo, given, keep, links, ours, ran, sampler, tiny, with_check
from .harness import Comfy
from .results import node

MOST = 2**64


def guarded(comfy: Comfy, prompt: dict | None = None, **changes) -> dict:
    prompt = demo() if prompt is None else prompt
    inputs = {"noise_seed": 40, "candidates": 4} | changes
    return prompt | {"noise": ours(comfy, "GuardedNoise", **links(prompt) | inputs), "kept": keep("noise", 1)}


def both_samplers(prompt: dict) -> dict:
    """KSampler by the seed, SamplerCustomAdvanced by the noise."""
    return prompt | {
        "by seed": sampler(seed=["noise", 1]),
        "guider": node("CFGGuider", model=["load", 0], positive=["text", 0], negative=["empty", 0], cfg=STEPS["cfg"]),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1.0),
        "by noise": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["euler", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "a": keep("by seed"),
        "b": keep("by noise"),
    }


@pytest.mark.parametrize("kind", ["demo", "eps", "sd3"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_seed_and_the_noise_are_the_same(comfy: Comfy, kind: str, batch: int):
    if kind == "demo":
        prompt = demo(batch=batch)
    else:
        prompt = tiny(comfy, kind) | {"latent": node("TestLatent", kind=kind, rows=batch)}
    outputs = ran(comfy, both_samplers(guarded(comfy, prompt))).outputs
    assert outputs["noise"][1] in range(40, 44)
    made = outputs["by seed"][0]["samples"]
    assert len(made) == batch and torch.equal(made, outputs["by noise"][0]["samples"])
    plain = ran(comfy, prompt | {"a": sampler(seed=outputs["noise"][1]), "b": keep("a")}).outputs["a"][0]["samples"]
    assert torch.equal(made, plain)


def scores(comfy: Comfy, seeds: range, prompt: dict | None = None, **changes) -> list[float]:
    """Of single seeds, as the node tells them."""
    found = []
    for seed in seeds:
        result = ran(comfy, guarded(comfy, prompt, noise_seed=seed % MOST, candidates=1, **changes))
        noise, given_seed, text = result.outputs["noise"]
        assert given_seed == noise.seed == seed % MOST
        found.append(float(text.split("score ")[1].split(",")[0]))
    return found


@pytest.mark.parametrize("calibration", ["automatic", "none"])
def test_the_best_of_the_candidates_is_given(comfy: Comfy, calibration: str):
    single = scores(comfy, range(40, 44), calibration=calibration)
    _, seed, text = ran(comfy, guarded(comfy, calibration=calibration)).outputs["noise"]
    assert len(set(single)) == 4 and single.index(min(single)) == seed - 40
    assert text.startswith(f"seed {seed}: score {min(single):.3f}, of {min(single):.3f} to {max(single):.3f} among 4")
    assert ("no calibration was chosen" in text) == (calibration == "none")


def test_a_score_is_that_of_its_noise(comfy: Comfy):
    """A check whose one draw is the seed's noise says the same."""
    check = with_check(comfy, demo(), draws=1, check_seed=40, calibration="none")
    squared = np.log(ran(comfy, check).outputs["check"][1] ** 2)
    assert scores(comfy, range(40, 41), calibration="none")[0] == pytest.approx(squared, abs=1e-3)


def test_a_batch_is_as_bad_as_its_worst_image(comfy: Comfy):
    from comfy.sample import prepare_noise

    noise = prepare_noise(torch.zeros(3, 4, 16, 16), 40)
    rows = [given(comfy, {"samples": torch.zeros(1, 4, 16, 16), "batch_index": [i]}) for i in range(3)]
    single = [scores(comfy, range(40, 41), demo() | {"latent": row})[0] for row in rows]
    assert scores(comfy, range(40, 41), demo(batch=3)) == [max(single)] and len(set(single)) == 3
    made = ran(comfy, guarded(comfy, demo(batch=3), candidates=1)).outputs["noise"][0]
    assert torch.equal(made.generate_noise({"samples": torch.zeros(3, 4, 16, 16)}), noise)
    one = made.generate_noise({"samples": torch.zeros(1, 4, 16, 16), "batch_index": [2]})
    assert torch.equal(one[0], noise[2])


def test_seeds_go_round_at_the_end(comfy: Comfy):
    _, seed, _ = ran(comfy, guarded(comfy, noise_seed=MOST - 2)).outputs["noise"]
    single = scores(comfy, range(MOST - 2, MOST + 2))
    assert seed == (MOST - 2 + single.index(min(single))) % MOST


def test_it_is_the_same_each_time(comfy: Comfy):
    found = []
    for _ in range(2):
        comfy.fresh()
        found.append(ran(comfy, guarded(comfy)).outputs["noise"][1:])
    assert found[0] == found[1]


def test_where_there_is_no_score_the_first_seed_is_given(comfy: Comfy):
    image = given(comfy, {"samples": torch.ones(1, 4, 16, 16)})
    noise, seed, text = ran(comfy, guarded(comfy, demo() | {"latent": image})).outputs["noise"]
    assert noise.seed == seed == 40 and text.startswith("not applicable: sampling starts from an image")


def test_a_calibration_of_another_model_is_refused(comfy: Comfy):
    from cryptomnesia.demo import demo_calibration

    from .graphs import calibrations

    path = calibrations(comfy) / f"early{ENDING}"
    path.parent.mkdir(exist_ok=True)
    demo_calibration().save(path)
    try:
        prompt = demo() | {"load": node("CryptomnesiaLoadDemoModel", checkpoint="early")}
        assert "another model" in complaint(comfy, guarded(comfy, prompt, calibration=path.name))
    finally:
        path.unlink()
