"""From errors to scores, and from a number of flagged images to whether it is more than chance."""

import math

from torch import Tensor

from ..calibration import conformal
from ..two_samples import edge

CONFIDENCE = 0.95
TINY = 1e-12  # of an error that is none


def scored(before: Tensor, now: Tensor, trained: int) -> tuple[Tensor, Tensor]:
    """Returns scores and p-values, (N,) float64 each, of the trained images.

    Args:
        before, now: Errors of all images, (N + held-out,), on the same noise before training and now; the trained ones
            first.
        trained: How many are trained on, N.

    Returns:
        Scores, log before / now, higher = more likely memorized; and p-values in (0, 1], small = unlike held-out ones.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    scores = before.double().clamp_min(TINY).log() - now.double().clamp_min(TINY).log()
    return scores[:trained], conformal(scores[trained:], scores[:trained])


def least_held_out(alpha: float) -> int:
    """Returns how many held-out images it takes that at most a share alpha of such images is flagged."""
    return max(1, math.ceil(1 / alpha * (1 - 1e-12)) - 1)


def most_allowed(held_out: int, alpha: float) -> int:
    """Returns the rank, from the highest, of the held-out image that flagged ones score above; see `chance`."""
    return int(alpha * (held_out + 1) * (1 + 1e-12))


def level_of(test: int, significance: float) -> float:
    """Returns what the p-value of a training's test number 1, 2, ... is compared with; in sum the significance."""
    return significance / (test * (test + 1))


def share_interval(hits: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the exact interval of a share (Clopper and Pearson 1934): what hits are not too rare or too many for."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else edge(lambda p: at_least(hits, of, p) > tail, hits / of, 0.0)
    high = 1.0 if hits == of else edge(lambda p: 1 - at_least(hits + 1, of, p) > tail, hits / of, 1.0)
    return low, high


def at_least(hits: int, of: int, p: float) -> float:
    """Returns the probability of that many hits or more in independent trials with probability p each."""
    if hits <= 0:
        return 1.0
    if p <= 0 or p >= 1:
        return float(p >= 1)
    terms = (
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(p) + (of - k) * math.log1p(-p)
        for k in range(hits, of + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def chance(hits: int, trained: int, held_out: int, allowed: int) -> float:
    """Returns how likely at least so many trained images score above a held-out one of that rank by chance.

    Exact where trained and held-out images are exchangeable, whatever their scores: every order of them is as likely
    (negative hypergeometric).

    Args:
        hits: Trained images above the held-out one that is the `allowed`-th highest.
        trained: All trained images.
        held_out: All held-out images.
        allowed: At least 1.
    """
    total = math.comb(trained + held_out, trained)
    ways = (
        math.comb(k + allowed - 1, k) * math.comb(trained - k + held_out - allowed, trained - k)
        for k in range(hits, trained + 1)
    )
    return sum(ways) / total
