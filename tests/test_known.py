"""What known memorized prompts teach: kept where it helps on held-out ones; the promise rests on benign ones alone."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.calibration_run import MeasuringRun
from cryptomnesia.combination import FEATURES, Combination
from cryptomnesia.errors import CalibrationError, InputError, NonFiniteError
from cryptomnesia.known import _balance, _regression, learn, split
from cryptomnesia.known_run import KnownRun
from cryptomnesia.mitigation.objective import Objective
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.memorization import memorization_score
from cryptomnesia.verdict import WEIGHED

from .helpers.guarded import BENIGN, SHAPE, attached, calibration, initial_noise
from .helpers.pipelines import build

WEIGHTS = [1.0, *[0.1] * 8, 3.0, -2.0]


def measured(count: int, seed: int, energy: float = 0.0, aniso: float = 0.0) -> Tensor:
    """(P, 10): log-normal rings, and alignments around a mean."""
    rng = np.random.default_rng(seed)
    rings = np.exp(rng.normal(energy, 1, (count, 8)))
    return torch.from_numpy(np.concatenate([rings, np.tanh(rng.normal(aniso, 0.5, (count, 2)))], 1))


@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_the_regression_is_scikit_learns(ridge):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, FEATURES)) * rng.uniform(0.1, 9, FEATURES) + 3
    y = (x[:, 0] / x[:, 0].std() + rng.normal(size=300) > 4).astype(float)
    weights, bias = _regression(x, y, ridge)
    z = (x - x.mean(0)) / (x.std(0) + 1e-9)
    theirs = LogisticRegression(C=len(x) / ridge, tol=1e-10, max_iter=5000).fit(z, y, sample_weight=_balance(y))
    expected = theirs.coef_[0] / (x.std(0) + 1e-9)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-6)
    assert bias == pytest.approx(theirs.intercept_[0] - expected @ x.mean(0), rel=1e-3, abs=1e-4)


def test_alignment_that_tells_is_used():
    learned = learn(measured(60, 0, aniso=1.5), measured(150, 1))
    assert learned.weights is not None and learned.auc > 0.9 > 0.6 > learned.default_auc and learned.gain[0] > 0
    assert learned.weights[-1] > 0 and learned.weights[-2] > 0
    fresh = [measured(400, seed, aniso=aniso) for seed, aniso in ((5, 1.5), (6, 0.0))]
    combination = Combination.learn(measured(150, 1)[:, :8], learned.weights)
    high, low = (combination.score(rows[:, :8], rows[:, 8:]) for rows in fresh)
    assert (high[:, None] > low).double().mean() > 0.9
    assert "as 60 known prompts taught" in learned.words


def test_the_other_way_round_too():
    """On some models alignment is low for memorized prompts."""
    learned = learn(measured(60, 0, aniso=-1.5), measured(150, 1))
    assert learned.weights is not None and learned.weights[-1] < 0


def test_what_teaches_nothing_is_not_used():
    for seed in range(5):
        learned = learn(measured(40, seed), measured(120, 50 + seed), seed=seed)
        assert learned.weights is None and "is not used" in learned.words
    perfect = learn(measured(40, 0, energy=9), measured(120, 1))
    assert perfect.weights is None and perfect.default_auc == 1  # nothing is better than the default's best


def test_the_promise_holds_whatever_was_learned():
    """Benign prompts that taught nothing calibrate: the weights may be any, the p-values stay uniform."""
    weights = learn(measured(60, 0, aniso=1.5), measured(100, 1)).weights
    shares = []
    for seed in range(20):
        benign, fresh = measured(200, 100 + seed), measured(200, 300 + seed)
        combination = Combination.learn(benign[:, :8], weights)
        one_out = [
            Combination.learn(benign[torch.arange(200) != i, :8], weights).score(benign[[i], :8], benign[[i], 8:])
            for i in range(200)
        ]
        scores = combination.score(fresh[:, :8], fresh[:, 8:])
        p = (1 + (torch.cat(one_out)[None] >= scores[:, None]).sum(1)) / 201
        shares.append((p <= 0.05).double().mean().item())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.012)


def test_nobody_teaches_and_calibrates():
    known = [f"known {i}" for i in range(25)]
    memorized, learning, rest = split([*known, " known 1 ", ""], ["KNOWN 3", *BENIGN])
    assert memorized == known and len(learning) == 34 and len(rest) == 66
    assert not set(learning) & set(rest) and not {"KNOWN 3"} & {*learning, *rest}
    with pytest.raises(InputError, match="19 different memorized prompts are too few"):
        split(known[:19] + known[:5], BENIGN)
    with pytest.raises(InputError, match="12 benign prompts are too few"):
        learn(measured(30, 0), measured(12, 1))
    odd = measured(30, 0)
    odd[3, 9] = torch.nan
    with pytest.raises(NonFiniteError):
        learn(odd, measured(30, 1))


# --- a model whose memory shows in alignment alone ---


def aligned(seed: int = 0) -> CallableDenoiser:
    """Guidance has one length whatever the prompt; towards the clean end it points along the empty prompt's noise for
    texts with an m, and anywhere for others."""

    def encode(texts: list[str]) -> Tensor:
        rows = []
        for text in texts:
            own = torch.Generator().manual_seed(sum(ord(c) * 31**i for i, c in enumerate(text)) % 2**31)
            rows.append(torch.cat([torch.tensor([float("m" in text), 1.0]), torch.randn(48, generator=own)]))
        return torch.stack(rows).unsqueeze(1)

    def fn(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        row = text[:, 0]
        unit = torch.nn.functional.normalize(row[:, 2:], dim=1).view_as(x)
        along = torch.nn.functional.normalize(x.flatten(1), dim=1).view_as(x)
        low = (t < 500).view(-1, 1, 1, 1) * row[:, 0].view(-1, 1, 1, 1)
        return x + row[:, 1].view(-1, 1, 1, 1) * (unit + 3 * low * along)

    return CallableDenoiser(
        fn, torch.linspace(0.9999, 0.005, 1000), empty=torch.zeros(1, 1, 50), latent_shape=(3, 4, 4), encode=encode
    )


KNOWN = [f"memo {i}" for i in range(40)]
BENIGN_TOY = [f"text {i}" for i in range(400)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(tmp_path))
    return tmp_path


def test_a_guard_that_was_taught_finds_what_the_norm_cannot_see(home):
    plain, taught = Guard(aligned()), Guard(aligned())
    plain.calibrate(BENIGN_TOY, draws=1)
    assert [report.memorized for report in plain.check_many(["memory", "a text"])] == [False, False]
    seen: list[Any] = []
    made = taught.calibrate(BENIGN_TOY, draws=1, known=KNOWN, progress=lambda *a: seen.append(a))
    assert made.combination.takes_alignment and made.n == 266
    assert seen[-1] == (40 + 134 + 266, 40 + 134 + 266) and [a for a, _ in seen] == sorted(a for a, _ in seen)
    reports = list(taught.check_many(["memory", "a text", "mum"]))
    assert [report.memorized for report in reports] == [True, False, True]
    assert all(report.note == WEIGHED and report.aniso is not None for report in reports)
    assert [report.memorized for report in taught.check_many(["memory"], alignment=True)] == [True]
    again = Guard(aligned(), "auto").check("memory")
    assert again.memorized and again.calibration_id == made.identity
    # the two empty branches once, then two rows a prompt and draw
    rows = [taught.check(text).forward_rows for text in ("mama", "papa")]
    assert rows == [2, 2]


def test_what_was_measured_of_known_prompts_is_not_measured_again(home, monkeypatch):
    guard = Guard(aligned())
    first = guard.calibrate(BENIGN_TOY, draws=1, known=KNOWN)
    monkeypatch.setattr(
        MeasuringRun, "steps", lambda self: iter(()) if self.done == self.total else pytest.fail("again")
    )
    assert guard.calibrate(BENIGN_TOY, draws=1, known=KNOWN) == first


def test_a_calibration_file_keeps_the_weights_and_odd_ones_are_refused(tmp_path):
    made = calibrate(aligned(), aligned().encode(BENIGN_TOY[:120]), draws=1)
    taught = replace(made, combination=replace(made.combination, weights=WEIGHTS))
    path = tmp_path / "a.calibration.json"
    taught.save(path)
    assert Calibration.load(path) == taught
    document = json.loads(path.read_text())
    for odd in (None, WEIGHTS[:-1], [*WEIGHTS[:-1], "1"], [*WEIGHTS[:-1], True], 3):
        document["combination"]["weights"] = odd
        path.write_text(json.dumps(document))
        with pytest.raises(CalibrationError, match="combination"):
            Calibration.load(path)
    with pytest.raises(CalibrationError, match="measure with alignment"):
        taught.score(memorization_score(aligned(), aligned().encode(["a"]), draws=1, alignment=False))


def test_measurements_that_do_not_fit_are_taken_anew(tmp_path):
    run = KnownRun(aligned(), KNOWN, BENIGN_TOY, draws=1, seed=0, alpha=0.01, partial=tmp_path / "known")
    next(run.steps())
    again = KnownRun(aligned(), KNOWN, BENIGN_TOY, draws=1, seed=0, alpha=0.01, partial=tmp_path / "known")
    assert 0 < again.done == run.done
    document = json.loads((tmp_path / "known").read_text())
    document["rows"][0][9] = 3.0  # no cosine
    (tmp_path / "known").write_text(json.dumps(document))
    assert KnownRun(aligned(), KNOWN, BENIGN_TOY, draws=1, seed=0, alpha=0.01, partial=tmp_path / "known").done == 0
    with pytest.raises(InputError, match="cannot promise"):
        KnownRun(aligned(), KNOWN, BENIGN_TOY[:200], draws=1, seed=0, alpha=0.005, partial=tmp_path / "other")


# --- pipelines ---


def taught(family: str, draws: int) -> Calibration:
    made = calibration(family, draws)
    return replace(made, combination=replace(made.combination, weights=WEIGHTS))


@pytest.mark.parametrize("draws", [1, 3])
def test_an_attached_guard_measures_alignment_where_the_score_weighs_it(draws):
    guard = Guard(build("sd1"), taught("sd1", draws), seed=7)
    reports = [attached(guard, steps=50).memorization[0] for _ in range(2)]
    private = draw_noise(guard.denoiser, draws - 1, _private(7), SHAPE) if draws > 1 else torch.empty(0, *SHAPE)
    noise = torch.cat([initial_noise(0), private])
    alone = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), noise=noise)  # type: ignore[attr-defined]
    for report in reports:
        assert report.score == pytest.approx(guard.calibration.score(alone).item(), abs=1e-3)  # type: ignore[union-attr]
        assert report.aniso == pytest.approx(alone.aniso.item(), abs=1e-4)
    assert reports[1].forward_rows == 2 + 2 * (draws - 1)


def _private(seed: int) -> int:
    from cryptomnesia.signals.draws import derived_seed

    return derived_seed(seed, "attached", False)


def test_mitigation_lowers_the_same_score():
    guard = Guard(build("sd1"), taught("sd1", 1))
    denoiser: Any = guard.denoiser
    text = denoiser.encode(["a cat"])
    objective = Objective(denoiser, guard.calibration, text, seed=3, shape=SHAPE)  # type: ignore[arg-type]
    alone = memorization_score(denoiser, text, noise=draw_noise(denoiser, 1, 3, SHAPE))
    assert objective.before.score.item() == pytest.approx(guard.calibration.score(alone).item(), abs=1e-3)  # type: ignore[union-attr]
    assert objective.forward_rows == 4
    moved = text.tensors["text"].detach().clone().requires_grad_()
    measure = objective(type(text)(**text.tensors | {"text": moved}), grad=True)
    (gradient,) = torch.autograd.grad(measure.score.sum(), moved)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0 and objective.save_memory()
    for method in ("rewrite", "reseed"):
        assert guard.mitigate("a cat", method, height=16, width=16).mitigation.forward_rows > 0
