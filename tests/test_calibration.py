import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from cryptomnesia.calibration import (
    Calibration,
    benjamini_hochberg,
    calibrate,
    conformal,
)
from cryptomnesia.calibration_run import CalibrationRun
from cryptomnesia.errors import CalibrationError, InputError
from cryptomnesia.signals.memorization import memorization_score

from .toy import SHAPE, linear, prompts

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


def test_bound_to_model_and_settings():
    denoiser = linear()
    calibration = calibrate(denoiser, prompts(120))
    calibration.require(denoiser, 4, SHAPE)
    with pytest.raises(CalibrationError, match="another model"):
        calibration.require(linear(seed=1), 4, SHAPE)
    with pytest.raises(CalibrationError, match="draws"):
        calibration.require(denoiser, 1, SHAPE)
    with pytest.raises(CalibrationError, match="latent size"):
        calibration.require(denoiser, 4, (3, 8, 8))
    with pytest.raises(CalibrationError, match="draws"):
        calibration.p_value(memorization_score(denoiser, prompts(1), draws=1))
    denoiser.dtype = torch.float16
    with pytest.raises(CalibrationError, match="dtype"):
        calibration.require(denoiser, 4, SHAPE)


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


def test_a_run_resumes_where_it_stopped(tmp_path):
    texts = [str(i) for i in range(120)]
    settings = {"draws": 2, "seed": 3, "alpha": 0.05, "partial": tmp_path / "run.partial"}
    broken = CalibrationRun(Encoding(fail_at=60), texts, **settings)
    with pytest.raises(KeyboardInterrupt):
        list(broken.steps())
    second = Encoding()
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
    next(CalibrationRun(Encoding(), texts, draws=2, seed=3, alpha=0.05, partial=partial).steps())
    assert CalibrationRun(Encoding(), texts, draws=2, seed=4, alpha=0.05, partial=partial).done == 0
    partial.write_text("{")
    assert CalibrationRun(Encoding(), texts, draws=2, seed=3, alpha=0.05, partial=partial).done == 0
