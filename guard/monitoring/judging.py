"""From energies of guidance to scores, and from a number of flagged captions to whether it is more than chance."""

import math

import torch
from torch import Tensor

from ..calibration import conformal
from ..combination import Combination
from ..two_samples import edge

CONFIDENCE = 0.95


def scored(trained: Tensor, benign: Tensor) -> tuple[Tensor, Tensor]:
    """Returns scores and p-values, (P,) float64 each, of trained captions among benign ones.

    Args:
        trained, benign: Energies per ring, (P, 8) and (n, 8), on the same noise.

    Returns:
        Scores, as a calibration by these benign captions has them, higher = more likely memorized; and p-values in
        (0, 1], small = unlike benign captions.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    scores = Combination.learn(benign).score(trained)
    return scores, conformal(left_out_scores(benign), scores)


def left_out_scores(benign: Tensor) -> Tensor:
    """Returns the score (n,) float64 of each benign caption by energies (n, 8) that the others alone define."""
    scores, others = [], torch.ones(len(benign), dtype=torch.bool)
    for i in range(len(benign)):
        others[i] = False
        scores.append(Combination.learn(benign[others]).score(benign[i : i + 1]))
        others[i] = True
    return torch.cat(scores)


def most_allowed(benign: int, alpha: float) -> int:
    """Returns the rank, from the highest, of the benign caption that flagged ones score above; see `chance`."""
    return int(alpha * (benign + 1) * (1 + 1e-12))


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


def chance(hits: int, trained: int, benign: int, allowed: int) -> float:
    """Returns how likely at least so many trained captions exceed all but `allowed` - 1 of the benign ones, by chance.

    Exact where trained and benign captions are exchangeable, whatever their scores: every order of them is as likely
    (negative hypergeometric).

    Args:
        hits: Trained captions above the benign one that is the `allowed`-th highest.
        trained: All trained captions.
        benign: All benign captions.
        allowed: At least 1.
    """
    total = math.comb(trained + benign, trained)
    ways = (
        math.comb(k + allowed - 1, k) * math.comb(trained - k + benign - allowed, trained - k)
        for k in range(hits, trained + 1)
    )
    return sum(ways) / total
