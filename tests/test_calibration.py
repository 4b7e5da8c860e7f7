import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from cryptomnesia.calibration import (
    Calibration,
    Combination,
    benjamini_hochberg,
    calibrate,
    conformal,
)
from cryptomnesia.calibration_run import CalibrationRun
from cryptomnesia.errors import CalibrationError, InputError, NonFiniteError
from cryptomnesia.false_discovery import adjusted, rejected
from cryptomnesia.signals.memorization import memorization_score

from .helpers.toy import SHAPE, linear, prompts

numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1, max_size=60), st.lists(numbers, min_size=1, max_size=10))
def test_conformal_counts(benign, scores):
    found = conformal(torch.tensor(benign, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64))
    for score, p in zip(scores, found.tolist(), strict=True):
        assert p == pytest.approx((1 + sum(b >= score for b in benign)) / (len(benign) + 1))


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=50), st.floats(0.01, 0.5))
def test_benjamini_hochberg_equals_scipy(p_values, alpha):
    adjusted = false_discovery_control(p_values)
    if all(abs(a - alpha) > 1e-12 for a in adjusted):
        assert benjamini_hochberg(p_values, alpha) == [a <= alpha for a in adjusted]


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_accuses_nobody(odd):
    """A NaN sorts as the highest score, and so had the smallest p-value of all."""
    benign, spectra = torch.arange(100.0), torch.ones(100, 8)
    for arguments in ((benign, torch.tensor([1.0, odd])), (torch.cat([benign, torch.tensor([odd])]), benign)):
        with pytest.raises(NonFiniteError):
            conformal(*arguments)
    spoiled = spectra.clone()
    spoiled[3, 2] = odd
    with pytest.raises(NonFiniteError):
        Combination.learn(spoiled)
    with pytest.raises(NonFiniteError):
        Combination.learn(spectra).score(spoiled)
    with pytest.raises(NonFiniteError):
        Combination([1e-300] * 8).score(torch.full((1, 8), 1e300, dtype=torch.float64))
    calibration = calibrate(linear(), prompts(120))
    with pytest.raises(NonFiniteError):
        calibration.p_of(torch.tensor([odd]))
    with pytest.raises(NonFiniteError):
        benjamini_hochberg([0.1, odd])


@pytest.mark.parametrize("odd", [-0.1, 1.1, np.inf, -np.inf])
def test_what_is_no_p_value_is_refused_and_what_is_missing_does_not_count(odd):
    with pytest.raises(InputError, match="between 0 and 1"):
        adjusted(np.array([0.5, odd]))
    found = adjusted(np.array([0.02, np.nan, 0.03]))
    assert found[[0, 2]].tolist() == [0.03, 0.03] and np.isnan(found[1])
    assert rejected(found, 0.05).tolist() == [True, False, True]
    for level in (0, 1, np.nan):
        with pytest.raises(InputError, match="false discovery rate"):
            rejected(found, level)


def test_no_p_values():
    assert benjamini_hochberg([], 0.05) == []


def test_false_alarm_rate_holds():
    # fresh benign prompts from the same distribution: at most alpha of them are flagged, up to chance
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(400), alpha=0.05)
    result = memorization_score(denoiser, prompts(2000, seed=8), seed=4)
    flagged = (calibration.p_value(result) <= 0.05).double().mean().item()
    assert 0.02 < flagged < 0.09


def test_threshold_agrees_with_p_values():
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(250), alpha=0.03)
    result = memorization_score(denoiser, 1.5 * prompts(200, seed=8))
    above = calibration.score(result) > calibration.threshold
    flagged = calibration.p_value(result) <= 0.03
    assert torch.equal(above, flagged)
    assert 0 < flagged.sum() < 200


def test_strong_guidance_is_flagged_and_ranked():
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(200), alpha=0.01)
    scale = torch.linspace(1, 40, 20)[:, None, None]
    result = memorization_score(denoiser, scale * prompts(1, seed=3))
    assert calibration.p_value(result)[-1] <= 0.01
    order = calibration.score(result)
    assert (order.diff() > 0).all()


def test_file_round_trip(tmp_path):
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(120), seed=2**60, alpha=0.02)
    path = tmp_path / "toy.calibration.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert json.loads(path.read_text())["seed"] == str(2**60)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("alpha"),
        lambda d: d.update(extra=1),
        lambda d: d.update(schema="other/1"),
        lambda d: d.update(n=3),
        lambda d: d.update(alpha=1.5),
        lambda d: d.update(scores=d["scores"][:-1]),
        lambda d: d["scores"].__setitem__(0, "NaN"),
        lambda d: d.update(scores="no"),
        lambda d: d.update(combination={"mean": 1}),
    ],
)
def test_spoiled_files_are_refused(tmp_path, spoil):
    path = tmp_path / "toy.calibration.json"
    calibrate(linear(), prompts(120)).save(path)
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=r"toy\.calibration\.json"):
        Calibration.load(path)


def test_truncated_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "toy.calibration.json"
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.load(path)
    calibrate(linear(), prompts(120)).save(path)
    path.write_text(path.read_text()[:200])
    with pytest.raises(CalibrationError, match="no valid JSON"):
        Calibration.load(path)


def misfit(calibration, denoiser, draws=4, shape=SHAPE):
    with pytest.raises(CalibrationError) as caught:
        calibration.require(denoiser, draws, shape)
    message = str(caught.value)
    assert "\n" not in message and "cryptomnesia calibrate" in message and "guard.calibrate(" in message
    return message


def test_bound_to_model_and_settings_and_the_cause_is_named():
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(120))
    calibration.require(denoiser, 4, SHAPE)
    message = misfit(calibration, linear(seed=1))
    assert "another model: of the same family, but with other weights" in message and "loaded now" not in message
    assert "use 4 draws, or" in misfit(calibration, denoiser, draws=1) and "--draws 1" in misfit(
        calibration, denoiser, 1
    )
    message = misfit(calibration, denoiser, shape=(3, 8, 8))
    assert "another latent size: 3x4x4, not 3x8x8" in message and "height=H" in message
    message = misfit(calibration, linear(seed=1), 2, (3, 8, 8))
    assert all(words in message for words in ("another model", "latent size", "draws=2"))
    message = misfit(replace(calibration, family="unet"), denoiser, 2)
    assert "of the family unet, not callable" in message and "draws: " not in message
    with pytest.raises(CalibrationError, match="draws"):
        calibration.p_value(memorization_score(denoiser, prompts(1), draws=1))
    denoiser.dtype = torch.float16
    message = misfit(calibration, denoiser)
    assert "another dtype: float32, not float16; load the model in float32 (--dtype float32)" in message
    other = linear(seed=1, fingerprint="half")  # a dtype changes the fingerprint, too
    other.dtype = torch.float16
    assert "weights" not in misfit(calibration, other)


def test_what_is_loaded_is_named():
    other = linear(seed=1)
    other.adapter_names = ("watercolour",)
    other.pixels = lambda shape: (8 * shape[1], 8 * shape[2])
    calibration = calibrate(linear(), prompts(120))
    message = misfit(calibration, other, shape=(3, 8, 4))
    assert "(loaded now: watercolour)" in message and "--height 64 --width 32" in message


def test_too_few_prompts_and_odd_alpha():
    with pytest.raises(InputError, match="at least 100"):
        calibrate(linear(), prompts(99))
    with pytest.raises(InputError, match="false-alarm rate"):
        calibrate(linear(), prompts(100), alpha=0.0)
    with pytest.raises(InputError, match="cannot promise"):
        calibrate(linear(), prompts(120), alpha=0.001)


class Encoding:
    """A denoiser that encodes texts, and can be made to fail in the middle."""

    def __init__(self, fail_at=None):
        self.inner, self.fail_at, self.encoded = linear(), fail_at, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def encode(self, texts):
        self.encoded += len(texts)
        if self.fail_at is not None and self.encoded > self.fail_at:
            raise KeyboardInterrupt
        return torch.cat([prompts(1, seed=int(text)) for text in texts])


def encoding(fail_at: int | None = None) -> Any:
    """As a denoiser, whose type it only looks like."""
    return Encoding(fail_at)


def test_a_run_resumes_where_it_stopped(tmp_path):
    texts = [str(i) for i in range(120)]
    settings = {"draws": 2, "seed": 3, "alpha": 0.05, "partial": tmp_path / "run.partial"}
    broken = CalibrationRun(encoding(fail_at=60), texts, **settings)
    with pytest.raises(KeyboardInterrupt):
        list(broken.steps())
    second = encoding()
    resumed = CalibrationRun(second, texts, **settings)
    assert resumed.done == 48
    assert list(resumed.steps())[-1] == resumed.total
    assert second.encoded == 120 - 48
    whole = calibrate(linear(), second.encode(texts), draws=2, seed=3, alpha=0.05)
    assert resumed.finish(tmp_path / "saved.json").scores == pytest.approx(whole.scores, abs=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["saved.json"]


def test_a_run_with_other_settings_starts_anew(tmp_path):
    texts = [str(i) for i in range(120)]
    partial = tmp_path / "run.partial"
    next(CalibrationRun(encoding(), texts, draws=2, seed=3, alpha=0.05, partial=partial).steps())
    assert CalibrationRun(encoding(), texts, draws=2, seed=4, alpha=0.05, partial=partial).done == 0
    partial.write_text("{")
    assert CalibrationRun(encoding(), texts, draws=2, seed=3, alpha=0.05, partial=partial).done == 0
