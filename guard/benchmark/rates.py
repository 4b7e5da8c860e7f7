"""How well one set of scores stands out from another, with intervals: the rules of every table of detection."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..two_samples import auc, auc_interval, auc_of_draws, tpr_at_fpr

ROUNDS = 1000
CONFIDENCE = 0.95

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A measured rate in [0, 1], and the interval that it is known to, at 95 %."""

    value: float
    low: float
    high: float


def stands_out(positive: Numbers, negative: Numbers) -> float:
    """Returns the AUC of positives above negatives, in [0, 1]: .5 = no difference, 1 = every one above every other."""
    return auc(negative, positive)


def told_apart(
    positive: Mapping[str, Numbers], negative: Mapping[str, Numbers], *, seed: int = 0, rounds: int = ROUNDS
) -> dict[str, tuple[Estimate, Estimate]]:
    """Returns the AUC and the true positive rate at 1 % false positives of several scores of the same prompts.

    Intervals are percentiles over prompts drawn anew, with replacement and the same ones for every score (Efron 1979).
    Where drawing anew changes nothing, as for an AUC of 1, the interval is Newcombe's or Wilson's instead, since that
    of the draws would have no width.

    Args:
        positive, negative: The scores of the positives (P,), and of the negatives (N,), by name.
        seed: The seed of the draws.
        rounds: How often prompts are drawn anew.
    """
    rng = np.random.default_rng(seed)
    names = list(positive)
    p, n = len(positive[names[0]]), len(negative[names[0]])
    some, others = rng.integers(p, size=(rounds, p)), rng.integers(n, size=(rounds, n))
    counts = _counts(others, n), _counts(some, p)
    found = {}
    for name in names:
        high, low = positive[name], negative[name]
        area, rate = stands_out(high, low), float(tpr_at_fpr(high, low))
        areas, rates = auc_of_draws(low, high, *counts), tpr_at_fpr(high[some], low[others])
        found[name] = (
            _between(area, areas, lambda area: auc_interval(area, n, p, CONFIDENCE)),
            _between(rate, rates, lambda rate: wilson(rate, p)),
        )
    return found


def _counts(drawn: NDArray[np.int64], of: int) -> Numbers:
    """How often each of so many was drawn, in each row."""
    rows = of * np.arange(len(drawn))[:, None]
    return np.bincount((drawn + rows).ravel(), minlength=of * len(drawn)).reshape(len(drawn), of).astype(np.float64)


def share(count: int, of: int) -> Estimate:
    """Returns a share with its interval; see `wilson`."""
    return Estimate(count / of, *wilson(count / of, of))


def wilson(value: float, of: int) -> tuple[float, float]:
    """Returns the interval of a share that was measured on so many, at 95 % (Wilson 1927, JASA 22:209)."""
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    middle = (value + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * math.sqrt(value * (1 - value) / of + z * z / (4 * of * of))
    return max(0.0, min(value, middle - reach)), min(1.0, max(value, middle + reach))


def _between(value: float, draws: Numbers, otherwise: Callable[[float], tuple[float, float]]) -> Estimate:
    tail = 50 * (1 - CONFIDENCE)
    low, high = (float(edge) for edge in np.percentile(draws, [tail, 100 - tail]))
    if low == high:
        low, high = otherwise(value)
    return Estimate(value, min(low, value), max(high, value))
