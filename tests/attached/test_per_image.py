"""`per_image`: of a call's images only those that must not go out are blank, and the others are what they would be."""

from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.errors import MemorizationBlocked, MemorizationWarning, UnverifiedBlocked

from ..helpers.guarded import above, calibration, call, flags_all, flags_none, seeded
from ..helpers.pipelines import build

pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
PROMPTS = ["a cat", "two dogs"]


@pytest.fixture(scope="module")
def mixed() -> Any:
    """A calibration that flags one of the two prompts, and which."""
    pipe, calibrated = build("sd1"), calibration("sd1")
    with Guard(pipe, above(calibrated, 1e9)).attached():
        scores = [report.score for report in call(pipe, PROMPTS, generator=seeded(1, 2)).memorization]
    return above(calibrated, sum(scores) / 2), scores.index(max(scores))


def arrays(images: Any) -> list[np.ndarray]:
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize("kind", ["pt", "np", "pil", "latent", "tuple"])
def test_only_flagged_images_are_blank(mixed: Any, kind: str):
    calibrated, flagged = mixed
    options: dict[str, Any] = {"return_dict": False} if kind == "tuple" else {"output_type": kind}
    plain = call(build("sd1"), PROMPTS, generator=seeded(1, 2), **options)
    pipe = build("sd1")
    with Guard(pipe, calibrated, "block", per_image=True).attached(), pytest.warns(MemorizationWarning):
        out = call(pipe, PROMPTS, generator=seeded(1, 2), **options)
    expected, got = (arrays(each[0] if kind == "tuple" else each.images) for each in (plain, out))
    assert not got[flagged].any() and expected[flagged].any()
    np.testing.assert_array_equal(got[1 - flagged], expected[1 - flagged])
    assert [report.memorized for report in out.memorization] == [i == flagged for i in range(2)]


def test_where_none_is_left_no_step_is_taken(monkeypatch: pytest.MonkeyPatch):
    pipe, steps = build("sd1"), []
    monkeypatch.setattr(pipe.scheduler, "step", lambda *args, **options: steps.append(args))
    guard = Guard(pipe, flags_all("sd1"), "block", per_image=True)
    with guard.attached(), pytest.raises(MemorizationBlocked, match="2 of 2"):
        call(pipe, PROMPTS)
    assert not steps


def test_where_none_is_flagged_nothing_changes():
    pipe = build("sd1")
    with Guard(pipe, flags_none("sd1"), "block", per_image=True).attached():
        assert torch.equal(call(pipe, PROMPTS).images, call(build("sd1"), PROMPTS).images)


def test_images_without_a_verdict_are_kept_back_too():
    pipe = build("sd1")
    guard = Guard(pipe, flags_none("sd1"), "block", per_image=True)
    with guard.attached(), pytest.raises(UnverifiedBlocked):
        call(pipe, PROMPTS, latents=torch.ones(2, 4, 8, 8))

    def swap(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        changed = tensors["prompt_embeds"].clone()
        changed[-1] += 1  # of the second image
        return {"prompt_embeds": changed}

    with guard.attached():
        told = ["latents", "prompt_embeds"]
        out = call(pipe, PROMPTS, callback_on_step_end=swap, callback_on_step_end_tensor_inputs=told)
    assert [report.verified for report in out.memorization] == [True, False]
    assert out.images[0].any() and not out.images[1].any()


def test_the_default_raises_for_all(mixed: Any):
    pipe = build("sd1")
    with Guard(pipe, mixed[0], "block").attached(), pytest.raises(MemorizationBlocked, match="1 of 2"):
        call(pipe, PROMPTS, generator=seeded(1, 2))
