"""The divergences of the paper on lineage (Ha, Ding, Wu, Shan, Zheng & Zhao): Gaussians compared, and a threshold."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, require
from ..finite import require_finite

Array = NDArray[np.float64]
LEAST_SHRINKAGE = 0.01  # keeps the covariance of images that vary in few directions invertible
ALL_ALIKE = "a model's images are all alike, so nothing tells how they vary: use another prompt"


def gaussians(points: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Returns mean (d,) and covariance (d, d) of each model's points (n, d).

    Each covariance is shrunk towards a sphere as much as is best for its size (Ledoit & Wolf 2004). Raises InputError
    for a model whose points are all alike.
    """
    for rows in points:
        require_finite(rows, "the points of a model")
    covariances = shrunk_covariances(points)
    if any(not np.trace(covariance) > 0 for covariance in covariances):
        raise InputError(ALL_ALIKE)
    return [(rows.mean(0), covariance) for rows, covariance in zip(points, covariances, strict=True)]


def divergence(a: tuple[Array, Array], b: tuple[Array, Array]) -> float:
    """Returns the divergence of two Gaussians (mean, covariance), >= 0, 0 for equal ones, unbounded.

    With S the mean of both covariances and d the difference of the means:
    1/8 d' S^-1 d + 1/2 ln(det S / sqrt(det S_a det S_b)) (Bhattacharyya 1943), which is (mu_a - mu_b)^2 / (8 sigma^2)
    in one dimension at equal variance. Ha et al. call it a Jensen-Shannon divergence; that one is bounded.
    """
    for part in (*a, *b):
        require_finite(part, "the means and covariances")
    apart, middle = a[0] - b[0], (a[1] + b[1]) / 2
    shift = apart @ np.linalg.solve(middle, apart) / 8
    (_, mixed), (_, first), (_, second) = (np.linalg.slogdet(c) for c in (middle, a[1], b[1]))
    return max(0.0, float(shift + (mixed - (first + second) / 2) / 2))


def divergences(models: Sequence[tuple[Array, Array]]) -> Array:
    """Returns the divergences (m, m) of any two of m Gaussians; symmetric, 0 on the diagonal."""
    table = np.zeros((len(models), len(models)))
    for a, b in combinations(range(len(models)), 2):
        table[a, b] = table[b, a] = divergence(models[a], models[b])
    return table


def null_threshold(pairs: Sequence[float], tau: float) -> float | None:
    """Returns mu + tau * sigma of a pool's pairwise divergences, the paper's threshold, or None for fewer than three.

    No one of three divergences lies below it, being at most sqrt(2) sigma below the mean; and the threshold of
    an uneven pool may be negative, so that nothing has a parent.
    """
    require_finite(pairs, "the distances")
    values = np.asarray(pairs, dtype=np.float64)
    return float(values.mean() + tau * values.std()) if len(values) >= 3 else None


def shrunk_covariances(points: Sequence[Array]) -> list[Array]:
    """Returns the covariance (d, d) of each model's points (n, d), shrunk as `gaussians` says."""
    return [_shrunk(rows) for rows in points]


def _shrunk(points: Array) -> Array:
    covariance = np.cov(points, rowvar=False, bias=True).reshape(points.shape[1], -1)
    share = max(require("sklearn.covariance", "audit").ledoit_wolf_shrinkage(points), LEAST_SHRINKAGE)
    return (1 - share) * covariance + share * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
