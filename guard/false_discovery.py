"""Which of many hypotheses are rejected when their p-values are looked at together."""

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Numbers = NDArray[np.float64]


def adjusted(p_values: Numbers) -> Numbers:
    """Returns Benjamini-Hochberg adjusted p-values (N,).

    Each is the smallest false discovery rate at which its row is rejected.

    Missing p-values (NaN) stay missing and do not count; what is no p-value raises InputError. The promise
    holds for conformal p-values of one calibration, too, although they depend on each other (Bates et al. 2023,
    arXiv 2104.08279, theorem 2).

    Reference: Benjamini & Hochberg 1995; Yekutieli & Benjamini 1999 for the adjusted form.

    Example:
        >>> adjusted(np.array([0.01, 0.04, np.nan, 0.5])).round(3).tolist()
        [0.03, 0.06, nan, 0.5]
    """
    result = np.full(len(p_values), np.nan)
    there = np.flatnonzero(~np.isnan(p_values))
    if not ((p_values[there] >= 0) & (p_values[there] <= 1)).all():
        raise InputError("a p-value lies between 0 and 1: something else was given as one")
    order = there[np.argsort(p_values[there], kind="stable")]
    raw = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum.accumulate(raw[::-1])[::-1].clip(max=1)
    return result


def share_of_nulls(p_values: Numbers, beyond: float = 0.5) -> float:
    """Returns how large a share of hypotheses is true at most, in (0, 1], as estimated from their p-values (N,).

    True ones have p-values all over, so those beyond some value are mostly theirs. Adjusted p-values times this share
    promise the same false discovery rate and reject more, where p-values are independent.

    Reference: Storey, Taylor & Siegmund, J. R. Stat. Soc. B 2004, theorem 3, for its finite form.

    Example:
        >>> share_of_nulls(np.array([0.01, 0.01, 0.01, 0.01, 0.7]))
        0.8
    """
    if not len(p_values):
        return 1.0
    return min(1.0, float((p_values > beyond).sum() + 1) / ((1 - beyond) * len(p_values)))


def rejected(adjusted_values: Numbers, level: float) -> NDArray[np.bool_]:
    """Tells which rows are rejected at a false discovery rate.

    Args:
        adjusted_values: What `adjusted` returns, (N,).
        level: The false discovery rate to promise, in (0, 1).

    Returns:
        (N,) bool, True where the row is rejected, i.e. counts as a discovery; missing p-values are not.

    Raises:
        InputError: The level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"a false discovery rate lies between 0 and 1, not at {level}")
    # a product and a quotient of doubles may miss the level by their rounding
    return adjusted_values <= level * (1 + 1e-12)


standing = rejected  # the former name
