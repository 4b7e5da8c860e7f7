"""Learning from prompts that are known to be memorized how ring energies and alignments are best combined.

On some models alignment says what the norm of guidance does not (Asthana & Belagiannis, arXiv 2601.20642), on others
nothing, or the reverse. So the weights are learned on the model itself, tried on prompts that were held out, and kept
only where they tell memorized prompts better than benign energies alone do. The promise of a calibration does not hang
on them: it rests on benign prompts that took no part in learning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .combination import FEATURES, Combination
from .errors import InputError
from .prompts.recorded import alike
from .signals.rings import RINGS
from .two_samples import auc, auc_of_draws, tpr_at_fpr

LEAST = 20  # memorized prompts
FOLDS = 5
RIDGES = (0.1, 1.0, 10.0, 100.0)  # per prompt; on standardised features
ROUNDS = 1000
CONFIDENCE = 0.95
EVERY = 3  # of so many benign prompts one is learned from, and the others calibrate

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Learned:
    """What was learned from known prompts, and how it does on those that were held out.

    Attributes:
        weights: The weights of `Combination.features`; None where they do not beat the default.
        auc, default_auc: The share of pairs that the learned score, and that of benign energies alone, has in order on
            held-out prompts.
        tpr, default_tpr: The share of memorized held-out prompts above all but 1 % of the benign ones, likewise.
        gain: The interval, at 95 %, of how much higher `auc` is.
        memorized, benign: How many prompts of each were learned from.
    """

    weights: list[float] | None
    auc: float
    default_auc: float
    tpr: float
    default_tpr: float
    gain: tuple[float, float]
    memorized: int
    benign: int

    @property
    def words(self) -> str:
        """What came of it, in a sentence."""
        figures = (
            f"on held-out prompts AUC {self.auc:.3f} and {self.tpr:.0%} found at 1 % false alarms, "
            f"{self.default_auc:.3f} and {self.default_tpr:.0%} without"
        )
        if self.weights is None:
            return f"what {self.memorized} known prompts taught is not used, since it is no better: {figures}"
        return f"energies and alignments are combined as {self.memorized} known prompts taught: {figures}"


def split(known: Sequence[str], benign: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the memorized prompts, the benign ones to learn from, and those to calibrate with, none of them twice.

    Raises InputError for too few memorized ones.
    """
    memorized = list(dict.fromkeys(text.strip() for text in known if text.strip()))
    if len(memorized) < LEAST:
        raise InputError(
            f"{len(memorized)} different memorized prompts are too few to learn from: give at least {LEAST}, or "
            "calibrate without them"
        )
    asked = {alike(text) for text in memorized}
    others = [text for text in benign if alike(text) not in asked]
    learning = others[::EVERY]
    chosen = set(learning)
    return memorized, learning, [text for text in others if text not in chosen]


def learn(memorized: Tensor, benign: Tensor, *, seed: int = 0) -> Learned:
    """Learns the weights by ridge logistic regression, whose strength and use are chosen by cross-validation.

    Args:
        memorized, benign: Measurements (P, 10) of each: the spectrum's 8 rings and both alignments.
        seed: The seed of the folds and of the draws behind the interval.

    Raises:
        InputError: Fewer than 20 of a kind.
        NonFiniteError: NaN or infinity.
    """
    for kind, rows in (("memorized", memorized), ("benign", benign)):
        if len(rows) < LEAST:
            raise InputError(f"{len(rows)} {kind} prompts are too few to learn from: give at least {LEAST}")
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(len(rows)) % FOLDS for rows in (memorized, benign)]
    held: dict[str, list[Numbers]] = {"learned": [np.empty(len(p)) for p in parts]}
    held["default"] = [np.empty(len(p)) for p in parts]
    for fold in range(FOLDS):
        kept = [rows[torch.from_numpy(part != fold)] for rows, part in zip((memorized, benign), parts, strict=True)]
        combination, weights = _fitted(kept[0], kept[1], rng)
        for rows, part, place in zip((memorized, benign), parts, (0, 1), strict=True):
            out = torch.from_numpy(part == fold)
            for name, weighed in (("learned", weights), ("default", None)):
                # folds have other scales: in units of the benign prompts that were learned from
                usual = _scores(combination, weighed, kept[1])
                held[name][place][part == fold] = (
                    _scores(combination, weighed, rows[out]) - usual.mean()
                ) / usual.std()
    areas = {name: auc(low, high) for name, (high, low) in held.items()}
    found = {name: float(tpr_at_fpr(high, low)) for name, (high, low) in held.items()}
    gain = _gain(held, rng)
    better = gain[0] > 0 and found["learned"] >= found["default"]
    weights = _fitted(memorized, benign, rng)[1].tolist() if better else None
    rates = (areas["learned"], areas["default"], found["learned"], found["default"])
    return Learned(weights, *rates, gain, len(memorized), len(benign))


def _fitted(memorized: Tensor, benign: Tensor, rng: np.random.Generator) -> tuple[Combination, Numbers]:
    """The combination of these benign prompts, and weights of its features; the ridge by held-out likelihood."""
    combination = Combination.learn(benign[:, :RINGS])
    x = np.concatenate([_features(combination, rows) for rows in (memorized, benign)])
    y = np.repeat([1.0, 0.0], [len(memorized), len(benign)])
    fold = np.concatenate([rng.permutation(len(rows)) % FOLDS for rows in (memorized, benign)])
    losses = [sum(_loss(x, y, fold == k, ridge) for k in range(FOLDS)) for ridge in RIDGES]
    return combination, _regression(x, y, RIDGES[int(np.argmin(losses))])[0]


def _features(combination: Combination, rows: Tensor) -> Numbers:
    return combination.features(rows[:, :RINGS], rows[:, RINGS:]).numpy()


def _scores(combination: Combination, weights: Numbers | None, rows: Tensor) -> Numbers:
    return combination.score(rows[:, :RINGS]).numpy() if weights is None else _features(combination, rows) @ weights


def _loss(x: Numbers, y: Numbers, out: Any, ridge: float) -> float:
    weights, bias = _regression(x[~out], y[~out], ridge)
    margin = (x[out] @ weights + bias) * (2 * y[out] - 1)
    return float((_balance(y[out]) * np.logaddexp(0, -margin)).sum())


def _balance(y: Numbers) -> Numbers:
    """Both kinds count the same, however many there are."""
    return np.where(y == 1, 0.5 / max(1, (y == 1).sum()), 0.5 / max(1, (y == 0).sum()))


def _regression(x: Numbers, y: Numbers, ridge: float, steps: int = 50) -> tuple[Numbers, float]:
    """Weights (11,) and bias of a ridge logistic regression, by Newton's method (iteratively reweighted squares)."""
    centre, scale = x.mean(0), x.std(0) + 1e-9
    z = np.concatenate([(x - centre) / scale, np.ones((len(x), 1))], 1)
    balance, penalty = _balance(y), np.diag([ridge / len(x)] * FEATURES + [0.0])
    beta = np.zeros(FEATURES + 1)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        gradient = z.T @ (balance * (p - y)) + penalty @ beta
        hessian = (z.T * (balance * np.maximum(p * (1 - p), 1e-9))) @ z + penalty + 1e-9 * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        beta = beta - step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))  # far steps overshoot
        if np.abs(step).max() < 1e-8:
            break
    weights = beta[:-1] / scale
    return weights, float(beta[-1] - weights @ centre)


def _gain(held: dict[str, list[Numbers]], rng: np.random.Generator) -> tuple[float, float]:
    """The interval of the gain in AUC, over prompts drawn anew, the same ones for both scores."""
    counts = []
    for values in held["default"]:
        n = len(values)
        counts.append(rng.multinomial(n, [1 / n] * n, size=ROUNDS).astype(np.float64))
    areas = [auc_of_draws(low, high, counts[1], counts[0]) for high, low in (held["learned"], held["default"])]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(areas[0] - areas[1], [tail, 100 - tail])
    return float(low), float(high)
