"""Two sets of numbers: is one smaller, by how much, and how many are needed to see it?"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, require
from .finite import require_finite

PERMUTATIONS = 9999
POWER = 0.8
FALSE_POSITIVES = 0.01
_AT_ONCE = 1 << 20  # numbers permuted at a time
_NORMAL = NormalDist()
Numbers = NDArray[np.float64]


def auc(low: Numbers, high: Numbers) -> float:
    """Returns the share of pairs in which the number from `low` is smaller, ties counted half; .5 = no difference.

    Raises InputError, as all that compares here, for no numbers, NaN or infinity.
    """
    ones = (np.ones((1, len(values))) for values in (low, high))
    return float(auc_of_draws(low, high, *ones)[0])


def tpr_at_fpr(positive: Numbers, negative: Numbers, most: float = FALSE_POSITIVES) -> Any:
    """Returns the largest true positive rate whose false positive rate is at most `most`; higher scores = positive.

    Of fewer than 1 / most negatives no single one may be flagged.

    Args:
        positive, negative: The scores, (P,) and (N,), or (R, P) and (R, N) for R rates at once.
        most: The false positive rate.
    """
    allowed = int(most * negative.shape[-1])
    threshold = np.sort(negative, -1)[..., -1 - allowed] if allowed < negative.shape[-1] else np.array(-np.inf)
    return (positive > threshold[..., None]).mean(-1)


def auc_of_draws(low: Numbers, high: Numbers, low_counts: Numbers, high_counts: Numbers) -> Numbers:
    """Returns the AUCs (R,) of R sets in which each number is there as often as is told; errors as in `auc`.

    Args:
        low, high: The numbers, (A,) and (B,).
        low_counts, high_counts: How often each is there, (R, A) and (R, B); at least one of each set.
    """
    _require_numbers(low, high)
    order = np.argsort(high, kind="stable")
    up_to = np.concatenate([np.zeros((len(high_counts), 1)), high_counts[:, order].cumsum(1)], 1)
    right, left = (np.searchsorted(high[order], low, side) for side in ("right", "left"))
    above, ties = up_to[:, -1:] - up_to[:, right], up_to[:, right] - up_to[:, left]
    return (low_counts * (above + ties / 2)).sum(1) / (low_counts.sum(1) * up_to[:, -1])


def rank_sum_p(low: Numbers, high: Numbers) -> float:
    """Returns the one-sided p-value of Wilcoxon, Mann and Whitney: small = `low` is smaller. Needs scipy."""
    _require_numbers(low, high)
    return float(require("scipy.stats", "audit").mannwhitneyu(low, high, alternative="less").pvalue)


def permutation_p(low: Numbers, high: Numbers, seed: int = 0, rounds: int = PERMUTATIONS) -> float:
    """Returns the one-sided p-value of the difference of means among relabelled sets; small = `low` is smaller.

    It is (1 + as small ones) / (1 + rounds).

    Exact in the sense that P(p <= alpha) <= alpha whatever the distribution, if both sets come from the same. The order
    of the numbers plays no part.
    """
    _require_numbers(low, high)
    rng = np.random.default_rng(seed)
    pooled = np.concatenate([np.sort(low), np.sort(high)])
    pooled = pooled - pooled.mean()
    observed = pooled[: len(low)].sum() + 1e-12 * np.abs(pooled).sum()  # rounding must not break ties
    as_small, left = 0, rounds
    while left:
        batch = min(left, max(1, _AT_ONCE // len(pooled)))
        chosen = rng.random((batch, len(pooled))).argsort(1)[:, : len(low)]
        as_small += int((pooled[chosen].sum(1) <= observed).sum())
        left -= batch
    return (1 + as_small) / (1 + rounds)


def auc_interval(value: float, first: int, second: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the confidence interval of an AUC measured on `first` and `second` numbers.

    Newcombe 2006 (Statistics in Medicine 25:559), method 5: the AUCs from which the measured one is not further away
    than chance allows. Wide enough at 0 and 1, where others have no width.
    """
    require_finite(value, "the values of an AUC")
    z, mean = _NORMAL.inv_cdf(0.5 + confidence / 2), (first + second) / 2

    def possible(theta: float) -> bool:
        spread = 1 + (mean - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 <= z * z * theta * (1 - theta) * spread / (first * second)

    return edge(possible, value, 0.0), edge(possible, value, 1.0)


def images_needed(value: float, alpha: float, power: float = POWER) -> int | None:
    """Returns how many images per folder the rank-sum test needs for that AUC and power; None if AUC <= .5.

    Noether 1987 (JASA 82:645); on the safe side for large effects.
    """
    require_finite(value, "the values of an AUC")
    if value <= 0.5:
        return None
    return max(3, math.ceil(_both(alpha, power) ** 2 / (6 * (value - 0.5) ** 2)))


def power(value: float, first: int, second: int, alpha: float) -> float:
    """Returns the share of cases in which the rank-sum test finds that AUC with so many numbers, in [0, 1].

    Noether 1987 (JASA 82:645). Raises InputError for NaN.
    """
    require_finite(value, "the values of an AUC")
    spread = math.sqrt((first + second + 1) / (12 * first * second))
    return _NORMAL.cdf((value - 0.5) / spread - _NORMAL.inv_cdf(1 - alpha))


def detectable_auc(first: int, second: int, alpha: float, power: float = POWER) -> float | None:
    """Returns the smallest AUC that so many numbers let the test find with that power; None if not even an AUC of 1."""
    smallest = 0.5 + _both(alpha, power) * math.sqrt((first + second + 1) / (12 * first * second))
    return smallest if smallest <= 1 else None


def _require_numbers(low: Numbers, high: Numbers) -> None:
    for values in (low, high):
        if not len(values):
            raise InputError("one of two sets of numbers is empty: nothing can be compared")
        require_finite(values, "the numbers of a set")


def _both(alpha: float, power: float) -> float:
    return _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)


def edge(possible: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where a property ends between a point that has it and one at the border, by bisection."""
    if inside == outside:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return inside
