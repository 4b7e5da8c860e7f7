"""A guard on a device that is short of memory, on odd numbers, and in odd modes of torch."""

from dataclasses import replace

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.errors import OutOfMemory, UnverifiedBlocked

from ..helpers.guarded import attached, calibration, call, flags_all
from ..helpers.pipelines import build
from ..helpers.recording import network_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning"),
    pytest.mark.filterwarnings("ignore::cryptomnesia.errors.UnverifiedWarning"),
]
every_method = pytest.mark.parametrize("policy", ["rewrite", "embed", "reseed"])


def out_of(rows, answer):
    """A denoiser's own question, on a device with memory for that many rows."""

    def ask(x, *rest):
        if len(x) > rows:
            raise torch.OutOfMemoryError(f"{len(x)} rows")
        return answer(x, *rest)

    return ask


class NoWayBack(torch.autograd.Function):
    """Has no memory for gradients."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grad_outputs):
        raise torch.OutOfMemoryError("gradients")


def test_private_draws_are_asked_one_by_one_when_memory_is_short():
    plain, tight = (Guard(build("sd1"), calibration("sd1", draws=3)) for _ in range(2))
    tight.denoiser.output = out_of(1, tight.denoiser.output)
    expected, out = attached(plain, steps=50), attached(tight, steps=50)
    assert torch.equal(out.images, expected.images)
    assert out.memorization[0].score == pytest.approx(expected.memorization[0].score, abs=1e-4)
    assert out.memorization[0].verdict == expected.memorization[0].verdict


@every_method
def test_mitigations_go_one_by_one_when_memory_is_short(policy):
    expected = attached(Guard(build("sd1"), flags_all("sd1"), policy), steps=50)
    guard = Guard(build("sd1"), flags_all("sd1"), policy)
    guard.denoiser.output = out_of(1, guard.denoiser.output)
    about = attached(guard, steps=50).memorization[0].mitigation
    assert about.reason == expected.memorization[0].mitigation.reason
    assert about.score_before == pytest.approx(expected.memorization[0].mitigation.score_before, abs=1e-3)


def test_without_memory_for_the_check_there_is_no_verdict_but_an_image_unless_blocked():
    guard = Guard(build("sd1"), flags_all("sd1"), "block")
    guard.denoiser.output = out_of(0, guard.denoiser.output)
    with pytest.raises(UnverifiedBlocked, match="no memory"):
        attached(guard, steps=3)
    guard = Guard(build("sd1"), flags_all("sd1"), "block", unverified="allow")
    guard.denoiser.output = out_of(0, guard.denoiser.output)
    out = attached(guard, steps=3)
    assert out.memorization[0].verdict == "not applicable" and "no memory" in out.memorization[0].reason
    assert torch.equal(out.images, call(build("sd1"), steps=3).images)


@every_method
def test_without_memory_for_a_mitigation_the_image_is_made_as_it_was(policy):
    guard = Guard(build("sd1"), flags_all("sd1"), policy)
    guard.denoiser.output = out_of(0, guard.denoiser.output)
    out = attached(guard, steps=50)  # judged without a row of its own
    report = out.memorization[0]
    assert report.memorized and not report.mitigation.held and "no memory" in report.mitigation.reason
    assert report.mitigation.score_before is None
    assert torch.equal(out.images, call(build("sd1"), steps=50).images)


@pytest.mark.parametrize("policy", ["rewrite", "embed"])
def test_without_memory_for_gradients_the_image_is_made_as_it_was(policy):
    guard = Guard(build("sd1"), flags_all("sd1"), policy)
    answer = guard.denoiser.output
    guard.denoiser.output = lambda *question: NoWayBack.apply(answer(*question))
    out = attached(guard)
    assert not out.memorization[0].mitigation.held and "memory" in out.memorization[0].mitigation.reason
    assert torch.equal(out.images, call(build("sd1")).images)
    with pytest.raises(OutOfMemory):
        guard.mitigate("a cat", policy)


def test_without_memory_for_texts_the_image_is_made_as_it_was(monkeypatch):
    guard = Guard(build("sd1"), flags_all("sd1"), "rewrite")
    encode = guard.denoiser._encode  # of the denoiser: another forward of the text encoder were another model

    def tight(prompts):
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("texts")
        return encode(prompts)

    monkeypatch.setattr(guard.denoiser, "_encode", tight)
    out = attached(guard)
    assert out.memorization[0].memorized and out.memorization[0].mitigation.reason == "texts"
    assert torch.equal(out.images, call(build("sd1")).images)


@pytest.mark.parametrize("steps", [50, 2])
def test_a_network_that_answers_nan_has_no_verdict(steps):
    pipe = build("sd1")
    network_of(pipe).conv_out.bias.fill_(float("nan"))
    guard = Guard(pipe)
    # in real life it fails after calibrating, e.g. in half precision
    guard.calibration = replace(calibration("sd1"), fingerprint=guard.denoiser.fingerprint)
    report = attached(guard, steps=steps).memorization[0]
    assert report.verdict == "not applicable" and "NaN" in report.reason and report.score is None


@pytest.mark.parametrize(
    "policy",
    [
        "rewrite",
        "reseed",
        "embed",
    ],
)
def test_mitigations_leave_no_gradients_on_the_users_weights(policy):
    pipe = build("sd1")
    weights = [*network_of(pipe).parameters(), *pipe.text_encoder.parameters()]
    for weight in weights:
        weight.requires_grad_()  # as loaded pipelines are
    assert attached(Guard(pipe, flags_all("sd1"), policy)).memorization[0].mitigation
    assert all(weight.grad is None for weight in weights)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "pixart"])
@every_method
def test_inference_mode_is_no_obstacle(family, policy):
    guard = Guard(build(family), flags_all(family), policy)
    with torch.inference_mode():
        inside = attached(guard).memorization[0].mitigation
    outside = attached(Guard(build(family), flags_all(family), policy)).memorization[0].mitigation
    assert inside.reason == outside.reason
    assert inside.score_after == pytest.approx(outside.score_after, abs=1e-3)
