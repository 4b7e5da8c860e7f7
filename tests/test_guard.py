"""The guard on a small random pipeline: right numbers, right verdicts, and nothing else changed."""

import json

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.calibration import calibrate
from cryptomnesia.errors import CalibrationError, InputError
from cryptomnesia.signals.memorization import memorization_score

from .helpers import pipelines

BENIGN = [f"{a} {b}" for a in "abcdefghij" for b in "klmnopqrst"]


@pytest.fixture(scope="module")
def pipe():
    return pipelines.build("sd1")


@pytest.fixture(scope="module")
def calibration(pipe):
    denoiser = Guard(pipe).denoiser
    return calibrate(denoiser, denoiser.encode(BENIGN), draws=2)


def test_the_report_holds_what_the_signal_measured(pipe, calibration):
    guard = Guard(pipe, calibration)
    report = guard.check("a cat", seed=2**63 + 5, draws=2, alignment=True)
    assert guard.check("a cat", seed=2**63 + 5, draws=2).iso == pytest.approx(report.iso, rel=1e-5)
    result = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), draws=2, seed=2**63 + 5)
    assert report.iso == pytest.approx(result.iso.item(), rel=1e-5)
    assert report.aniso == pytest.approx(result.aniso.item(), abs=1e-5)
    assert report.score == pytest.approx(calibration.score(result).item(), abs=1e-4)
    assert report.p_value == pytest.approx(calibration.p_value(result).item())
    assert report.forward_rows == 8
    assert report.verdict == ("memorized" if report.p_value <= 0.01 else "clear")
    assert json.loads(json.dumps(report.to_dict()))["seed"] == str(2**63 + 5)


def test_many_prompts_are_the_single_ones_whatever_the_chunk(pipe, calibration):
    guard = Guard(pipe, calibration)
    prompts = ["a cat", "", "b " * 200, "two dogs", "a cat"]
    whole = list(guard.check_many(prompts, draws=2))
    parts = list(guard.check_many(iter(prompts), draws=2, batch_rows=4))
    alone = [guard.check(prompt, draws=2) for prompt in prompts]
    for a, b, c in zip(whole, parts, alone, strict=True):
        assert a.iso == pytest.approx(b.iso, abs=1e-4) == pytest.approx(c.iso, abs=1e-4)
        assert a.verdict == b.verdict == c.verdict
    assert whole[1].iso == pytest.approx(0, abs=1e-5)  # the empty prompt has no guidance
    assert "truncates" in whole[2].note
    assert whole[0].note is None


def counted(denoiser):
    """Rows of every call of the network from now on."""
    calls, own = [], denoiser.output

    def output(x, time, condition):
        calls.append(len(x))
        return own(x, time, condition)

    denoiser.output = output
    return calls


def test_the_empty_prompt_is_asked_once_per_model_size_and_seed():
    guard = Guard(pipelines.build("sd1"))
    calls = counted(guard.denoiser)
    first, second = guard.check("a cat"), guard.check("a cat")
    assert (first.forward_rows, second.forward_rows) == (8, 4) and sum(calls) == 12
    assert first.score == second.score
    calls.clear()
    assert guard.check("a cat", seed=1).forward_rows == 8
    assert guard.check("a cat", seed=1, height=32, width=32).forward_rows == 8
    guard.denoiser.pipe.unet.conv_out.weight.data *= 2
    doubled = guard.check("a cat")
    assert doubled.forward_rows == 8 and sum(calls) == 24
    assert doubled.score == pytest.approx(2 * first.score, rel=1e-4)


@pytest.mark.parametrize("alignment", [False, True])
def test_no_call_has_more_rows_than_it_may_have(alignment):
    guard = Guard(pipelines.build("sd1"))
    whole = guard.check("a cat", alignment=alignment)
    for most in (1, 3):
        calls = counted(guard.denoiser)
        few = list(guard.check_many(["a cat", "two dogs"], batch_rows=most, seed=most, alignment=alignment))
        assert max(calls) <= most and sum(calls) == (32 if alignment else 12)
        again = next(guard.check_many(["a cat"], batch_rows=most, alignment=alignment))
        assert again.score == pytest.approx(whole.score, rel=1e-4) and len(few) == 2


def test_without_a_calibration_there_is_no_verdict(pipe):
    report = Guard(pipe).check("a cat", draws=1)
    assert (report.verdict, report.p_value, report.memorized) == ("uncalibrated", None, False)
    assert "calibrate" in report.reason


def test_a_distilled_model_is_compared_with_its_empty_prompt():
    report = Guard(pipelines.build("flux-guided")).check("a cat", draws=1)
    assert (report.verdict, report.reference) == ("uncalibrated", "empty prompt")
    assert report.score > 0 and report.to_dict()["reference"] == "empty prompt"


def test_a_calibration_of_another_model_is_refused(calibration, tmp_path):
    calibration.save(tmp_path / "x.calibration.json")
    guard = Guard(pipelines.build("sd1", seed=5), tmp_path / "x.calibration.json")
    with pytest.raises(CalibrationError, match="another model"):
        guard.check("a cat", draws=2)


def test_bad_arguments(pipe):
    with pytest.raises(InputError, match="at least one noise draw"):
        Guard(pipe).check("a cat", draws=0)
    with pytest.raises(InputError, match="multiple"):
        Guard(pipe).check("a cat", height=13)
    with pytest.raises(InputError, match="policy"):
        Guard(pipe, policy="hope")


def test_checking_leaves_the_images_and_all_random_state_alone(pipe):
    def image():
        torch.manual_seed(0)
        return pipe("a cat", num_inference_steps=2, output_type="np").images

    before = image()
    generator = torch.Generator().manual_seed(3)
    state, scheduler = generator.get_state(), dict(vars(pipe.scheduler))
    Guard(pipe).check("a cat")
    assert dict(vars(pipe.scheduler)).keys() == scheduler.keys()
    assert torch.equal(pipe.scheduler.timesteps, scheduler["timesteps"])
    assert torch.equal(generator.get_state(), state)
    assert (image() == before).all()
