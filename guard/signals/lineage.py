"""Whose child is this model? Distances between the distributions of images that models make of one prompt.

Black box: nothing but embeddings of images is looked at. The embeddings of all models are unrolled together (Isomap:
Tenenbaum et al. 2000), each model's images become a Gaussian there, and Gaussians are compared: a fine-tuned model
stays closer to its parent than unrelated models are to each other (Ha, Ding, Wu, Shan, Zheng & Zhao).

Four things differ from the paper, whose rule was worse at "none of these" on the project's own models; with
`author_compat` they are as there:

- distances are between mean images, in standard deviations within a model (Mahalanobis 1936): all models share one
  covariance, since a fine-tune may vary far less than its parent, and would else be far from everything;
- they are less what few images add by chance, and not squared, so that no prompt and no pair of models outweighs all
  others;
- distances are relative to what all others make expect of two unrelated models; see `unrelated`. A strong fine-tune
  moves away from all models, but less so from its parent;
- the test is on logarithms, since distances are positive and skewed; its spread is that of many unrelated models and of
  the pool together, since a small pool has few distances; and it allows for the number of candidates.

Several prompts are best judged on the mean of their tables of distances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, require
from ..finite import require_finite
from .divergences import ALL_ALIKE, divergences, gaussians, null_threshold, shrunk_covariances
from .unrelated import unrelated

Array = NDArray[np.float64]
DIMENSION, TAU, NEIGHBOURS = 10, -1.64, 80


@dataclass(frozen=True)
class Lineage:
    """What the images of one prompt say about a model's parent.

    Attributes:
        parent: The pool's likely parent; None where no model of the pool is close enough, or nothing can be tested.
        nearest: The closest model of the pool, parent or not.
        distances: The distances from the target to each model of the pool that was kept, >= 0, smaller = more alike.
            They are relative to how far apart unrelated models would be: 1 is that far. With author_compat, and of a
            pool of one, they are plain.
        null_threshold: A nearest model at this distance or farther is no parent; None for a pool of one or two, whose
            distances among each other, one at most, do not tell how far apart unrelated models are.
        margin: How much the distances must change for another answer, >= 0; None for a pool of one.
        pairs: Distances between any two models that were kept, by their names.
        dropped: Models that were left out as all too close to another, by the name of the one that was kept.
        images: The numbers of images that the answer rests on, the target's and by model.
        p_value: How often the nearest of as many unrelated models would be as near, in [0, 1]; None where that is not
            tested, or with author_compat.
    """

    parent: str | None
    nearest: str
    distances: dict[str, float]
    null_threshold: float | None
    margin: float | None
    pairs: dict[tuple[str, str], float]
    dropped: dict[str, str]
    images: tuple[int, dict[str, int]]
    p_value: float | None = None

    @property
    def tested(self) -> bool:
        """Whether the pool is large enough to tell a parent from none."""
        return self.null_threshold is not None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        pairs = [{"models": list(names), "distance": value} for names, value in self.pairs.items()]
        target, pool = self.images
        return {**asdict(self), "pairs": pairs, "images": {"target": target, "pool": pool}, "tested": self.tested}


def lineage(
    target_embeddings: ArrayLike,
    pool_embeddings: Mapping[str, ArrayLike],
    *,
    dimension: int = DIMENSION,
    tau: float = TAU,
    neighbours: int = NEIGHBOURS,
    author_compat: bool = False,
) -> Lineage:
    """Tells which model of a pool the target comes from, or that it is none of them.

    The target has no parent in the pool unless its closest model is closer than the closest of so many unrelated ones
    would be in 5 % of all cases; see `unrelated`. With author_compat, if min_i D(target, i) >= mu + tau * sigma, with
    mean and standard deviation of the pool's own pairwise distances. Models of the pool that are that close to each
    other are one for this purpose: the first of them is kept. Fewer than three are not tested.

    Args:
        target_embeddings: Embeddings (n, D) of images that the target made of one prompt.
        pool_embeddings: Embeddings (n_i, D) of the same prompt's images, by the pool model's name.
        dimension: The dimension of the space that the embeddings are unrolled to.
        tau: How seldom unrelated models shall be taken for a parent, as a quantile of the normal distribution: -1.64 is
            in 5 % of all cases.
        neighbours: Neighbours per image in the graph along which distances are measured.
        author_compat: Follow the paper; see the top of this module.

    Returns:
        The likely parent, all distances and the threshold.

    Raises:
        InputError: Shapes that do not fit, fewer than dimension + 1 images of a model, NaN or infinity, an empty
            pool, or embeddings that do not differ.
        MissingPackage: scikit-learn is not installed.
    """
    points = unrolled([target_embeddings, *pool_embeddings.values()], list(pool_embeddings), dimension, neighbours)
    table = distances(points, author_compat=author_compat)
    return judged(table, list(pool_embeddings), [len(rows) for rows in points], tau=tau, author_compat=author_compat)


def unrolled(
    embeddings: Sequence[ArrayLike], names: Sequence[str], dimension: int = DIMENSION, neighbours: int = NEIGHBOURS
) -> list[Array]:
    """Returns the Isomap of all images together, (n, dimension) for the target, the first, and for each model.

    Raises what `lineage` does.
    """
    import warnings

    groups = _checked(embeddings, names, dimension)
    manifold, everything = require("sklearn.manifold", "audit"), np.concatenate(groups)
    if np.ptp(everything, axis=0).max() <= 1e-6 * np.abs(everything).max():  # what rounding in float32 may leave
        raise InputError("all images have the same embedding: use another encoder, or images that differ")
    neighbours = min(neighbours, len(everything) - 1)
    isomap = manifold.Isomap(n_neighbors=neighbours, n_components=dimension, eigen_solver="dense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph in several parts is joined where they are closest
        points = isomap.fit_transform(everything)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(np.asarray(points, dtype=np.float64), ends)


def distances(points: Sequence[Array], *, author_compat: bool = False) -> Array:
    """Returns the distances (m, m) of any two models from their points (n, d) that were unrolled together.

    They are >= 0, symmetric and 0 on the diagonal, in standard deviations, or the paper's divergences. Raises
    InputError for NaN or infinity, as all that compares here, and for points that are all alike.
    """
    for rows in points:
        require_finite(rows, "the points of a model")
    if author_compat:
        return divergences(gaussians(points))
    covariances = shrunk_covariances(points)
    if not any(covariance.any() for covariance in covariances):
        raise InputError(ALL_ALIKE)
    whitening = np.linalg.cholesky(np.linalg.inv(np.mean(covariances, axis=0)))
    means = np.stack([rows.mean(0) for rows in points]) @ whitening
    spreads = [np.trace(whitening.T @ covariance @ whitening) for covariance in covariances]
    chance = np.array([spread / len(rows) for spread, rows in zip(spreads, points, strict=True)])  # of a mean, squared
    squared = np.square(means[:, None] - means).sum(-1) - chance[:, None] - chance
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum(squared, 0))


def judged(
    plain: Array, names: Sequence[str], images: Sequence[int], *, tau: float = TAU, author_compat: bool = False
) -> Lineage:
    """Judges as `lineage` does, from distances (m, m) and numbers of images (m) of the target, the first, and a pool.

    Distances may be of one prompt, or the mean over several. Raises InputError for NaN or infinity.
    """
    require_finite(plain, "the distances")
    kept, dropped = list(range(len(names))), {}
    while True:
        rows = [0, *(number + 1 for number in kept)]
        compared = _compared(plain[np.ix_(rows, rows)], tau, author_compat=author_compat)
        table = compared.table
        pairs = {(a, b): float(table[a + 1, b + 1]) for a, b in combinations(range(len(kept)), 2)}
        first, second = min(pairs, key=lambda pair: pairs[pair], default=(0, 0))
        if compared.double is None or pairs[first, second] >= compared.double:
            break
        dropped[names[kept[second]]] = names[kept[first]]
        del kept[second]
    threshold = compared.parent
    to_pool = {names[number]: float(table[0, row + 1]) for row, number in enumerate(kept)}
    nearest, *others = sorted(to_pool, key=lambda name: to_pool[name])
    parent = nearest if threshold is not None and to_pool[nearest] < threshold else None
    return Lineage(
        parent,
        nearest,
        to_pool,
        threshold,
        _margin(to_pool[nearest], to_pool[others[0]] if others else None, threshold),
        {(names[kept[a]], names[kept[b]]): distance for (a, b), distance in pairs.items()},
        dropped,
        (images[0], {names[number]: images[number + 1] for number in kept}),
        compared.p_value,
    )


class _Compared(NamedTuple):
    """Distances, and those below which two models of the pool are one, and the nearest is a parent; None: untested.

    The p-value is of the nearest, among unrelated models.
    """

    table: Array
    double: float | None = None
    parent: float | None = None
    p_value: float | None = None


def _compared(plain: Array, tau: float, *, author_compat: bool) -> _Compared:
    count = len(plain) - 1
    upper = [(a, b) for a, b in combinations(range(1, count + 1), 2)]
    if author_compat:
        threshold = null_threshold([plain[pair] for pair in upper], tau)
        return _Compared(plain, threshold, threshold)
    if count < 2:
        return _Compared(plain)
    found = unrelated(plain)
    if count < 3:
        return _Compared(found.relative)
    nearest = 1 + int(np.argmin(found.relative[0, 1:]))
    closest = min(upper, key=lambda pair: found.relative[pair])
    return _Compared(
        found.relative,
        found.limit(*closest, among=len(upper), tau=tau, capped=True),
        found.limit(0, nearest, among=count, tau=tau),
        found.p_value(0, nearest, among=count),
    )


def _margin(nearest: float, second: float | None, threshold: float | None) -> float | None:
    if threshold is not None and nearest >= threshold:
        return nearest - threshold
    limits = [limit for limit in (second, threshold) if limit is not None]
    return min(limits) - nearest if limits else None


def _checked(embeddings: Sequence[ArrayLike], names: Sequence[str], dimension: int) -> list[Array]:
    """Two-dimensional float64, of one width, enough rows each."""
    if not names:
        raise InputError("the pool is empty: give at least one model that may be the parent")
    if dimension < 1:
        raise InputError(f"the dimension is at least 1, not {dimension}")
    groups: list[Array] = []
    for name, group in zip(["the target", *names], embeddings, strict=True):
        array = np.asarray(group, dtype=np.float64)
        if array.ndim != 2:
            raise InputError(f"the embeddings of {name} are (images, D), not {array.shape}")
        if len(array) <= dimension:
            raise InputError(
                f"{len(array)} images of {name} are too few for {dimension} dimensions: give at least {dimension + 1}"
            )
        require_finite(array, f"the embeddings of {name}")
        if groups and array.shape[1] != groups[0].shape[1]:
            raise InputError(f"the embeddings of {name} are by another encoder: {array.shape[1]} numbers each")
        groups.append(array)
    return groups
