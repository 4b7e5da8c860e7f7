"""How well one set of scores stands out from another, with intervals: the rules of every table of detection."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..two_samples import auc, auc_interval

FALSE_POSITIVES = 0.01
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


def tpr_at_fpr(positive: Numbers, negative: Numbers, most: float = FALSE_POSITIVES) -> float:
    """Returns the largest true positive rate whose false positive rate is at most `most`; higher scores = positive.

    Of fewer than 1 / most negatives no single one may be flagged.
    """
    allowed = int(most * len(negative))
    threshold = np.sort(negative)[::-1][allowed] if allowed < len(negative) else -np.inf
    return float((positive > threshold).mean())


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
    draws: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        some, others = rng.integers(p, size=p), rng.integers(n, size=n)
        for name in names:
            again = positive[name][some], negative[name][others]
            draws[name].append((stands_out(*again), tpr_at_fpr(*again)))
    found = {}
    for name in names:
        area, rate = stands_out(positive[name], negative[name]), tpr_at_fpr(positive[name], negative[name])
        areas, rates = np.array(draws[name]).T
        found[name] = (
            _between(area, areas, lambda area: auc_interval(area, n, p, CONFIDENCE)),
            _between(rate, rates, lambda rate: wilson(rate, p)),
        )
    return found


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
