"""How far apart would two models be if they were unrelated? A random-effects model of the logarithms of all distances.

log d_ij = mu + a_i + a_j + e_ij, where `a` is how far a model is from all others and `e` what the pair has of its own.
Each distance is compared with what all *other* ones make expect of it (its deleted residual), so that a parent does not
hide in the mean that it is compared with. How much `a` and `e` vary was measured on many small models that have nothing
to do with each other (`benchmarks.lineage_unrelated`); what the distances at hand say of `e` is added to that as more
measurements are (Smyth 2004), so that a residual over its spread is Student's t, and a limit holds for the nearest of
several candidates (Sidak 1967). "Unrelated" means: no more alike than those. Models that learned from the same
images are more alike, and nothing here tells them from parent and child.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from ..finite import require_finite

Array = NDArray[np.float64]
# Standard deviation of e, the degrees of freedom that it counts as, and the variance of a as a multiple of that of e.
# Likeliest on two kinds of models are .39 and .26, and .15 and .84; near pairs are more frequent than a normal
# distribution has them, and these are wide enough for 5 % on the mean of both kinds.
USUAL_SPREAD, USUAL_PAIRS, OWN = 0.5, 4.0, 0.3
LEAST = 0.01  # of the middle distance: a smaller one is chance, and counts as this


@dataclass(frozen=True)
class Unrelated:
    """All distances of m models, compared with those of unrelated ones.

    Attributes:
        relative: Each distance over the one that all others make expect, (m, m), symmetric, 0 on the diagonal;
            1 = as far as unrelated models, smaller = more alike, 0 = no farther than chance.
        spread: Standard deviations (m, m) of the logarithms of these, had the pair nothing in common.
        freedom: Degrees of freedom that those rest on.
        usual: Their standard deviation before these distances are looked at.
    """

    relative: Array
    spread: Array
    freedom: float
    usual: float

    def limit(self, one: int, other: int, among: int, tau: float, *, capped: bool = False) -> float:
        """Returns the relative distance below which the nearest of some unrelated pairs lies seldom.

        Args:
            one, other: The models, by row and column.
            among: How many pairs there are of which this is the nearest.
            tau: How seldom, as a quantile of the normal distribution: -1.64 is in 5 % of all cases.
            capped: Take no spread beyond the usual one: several pairs of equal models widen it, and hide each other.
        """
        spread = min(self.spread[one, other], self.usual) if capped else self.spread[one, other]
        return float(np.exp(_quantile(tau, among, self.freedom) * spread))

    def p_value(self, one: int, other: int, among: int) -> float:
        """Returns how often the nearest of so many unrelated pairs is as near as these two models, in [0, 1]."""
        if self.relative[one, other] == 0:
            return 0.0
        students = np.log(self.relative[one, other]) / self.spread[one, other]
        seldom = float(require("scipy.special", "audit").stdtr(self.freedom, students))
        return float(-np.expm1(among * np.log1p(-seldom))) if seldom < 1 else 1.0


def unrelated(table: Array) -> Unrelated:
    """Compares the distances (m, m) of at least three models with those of unrelated ones.

    Raises:
        InputError: A distance is NaN or infinity.
        ValueError: There are fewer than three models.
    """
    require_finite(table, "the distances")
    count = len(table)
    if count < 3:
        raise ValueError(f"the distances of {count} models say nothing about those of others: give three or more")
    upper = np.triu_indices(count, 1)
    pairs = len(upper[0])
    logs = np.log(np.maximum(table, max(LEAST * float(np.median(table[upper])), np.finfo(float).tiny)))
    logs -= logs[upper].mean()
    np.fill_diagonal(logs, 0)
    # generalised least squares in closed form: what is a model's own is taken away, as far as it is known
    rows = count - 2 + 1 / OWN
    own = logs.sum(1) / rows
    left = logs - own[:, None] - own
    # of a distance in its own residual; equal for all pairs
    weight = 1 - 2 / rows + 4 / (rows * (rows + count)) - (1 - 2 * (count - 1) / (rows + count)) / pairs
    others = np.maximum((logs[upper] * left[upper]).sum() - left**2 / weight, 0)  # squares without the pair's own
    freedom = USUAL_PAIRS + pairs - 2
    spread = np.sqrt((USUAL_PAIRS * USUAL_SPREAD**2 + others) / freedom / weight)
    relative = np.where(table > 0, np.exp(left / weight), 0)
    return Unrelated(relative, spread, freedom, USUAL_SPREAD / float(np.sqrt(weight)))


@lru_cache(maxsize=1024)
def _quantile(tau: float, among: int, freedom: float) -> float:
    seldom = -np.expm1(np.log1p(-NormalDist().cdf(tau)) / among)
    return float(require("scipy.special", "audit").stdtrit(freedom, seldom))
