"""A statistic that is learned from the folders themselves, out of each layer's gradient norm, with an honest p-value.

A ridge, a linear discriminant with shrunk covariance, learns on four fifths of the images what tells suspects from
references, and scores the last fifth. Scores that come out of one such cross-fitting depend on each other, so that no
textbook test holds for them. But where both sets are of one kind and neither was trained on, every other labelling of
the same images was as likely: so all of it, learning included, is done again under permuted labels, and the p-value is
the share of labellings that do as well (Ojala & Garriga 2010). Whatever is settled without the labels leaves that
exact: folds, scales, what plain image features explain, and the expectation below.

Reference for the features: Pang et al. 2023, arXiv 2308.06405, who learn them on a model of one's own, which nobody has
for a pretrained one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, require
from ..finite import require_finite

FOLDS = 5
PERMUTATIONS = 1999
PENALTY = 10.0  # of the ridge, per column
EXPECTED = 0.2
"""Spread of the scores that are expected before anything is learned, of labels 1 and 0: members have smaller norms and
a smaller statistic. Both were settled on the zoo's smaller fine-tune without captions, and its LoRA with captions; see
`benchmarks.membership_gradients`."""
PLAIN_PENALTY = 1.0
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Learned:
    """What a learned statistic tells of two sets.

    Attributes:
        suspects, references: (n,) and (m,) out-of-fold scores in the order of their rows; smaller = more like suspects
            and, before anything is learned, more member-like.
        permutation_p, rank_sum_p: p-values by permutation of everything, for the difference of mean scores and for the
            sum of their ranks; in (0, 1], small = suspects are recognised. Both are 1 where suspects on the whole have
            larger norms and a larger statistic than references, as no training images have.
    """

    suspects: Numbers
    references: Numbers
    permutation_p: float
    rank_sum_p: float


def learn(
    suspects: Numbers,
    references: Numbers,
    suspect_statistic: Numbers,
    reference_statistic: Numbers,
    suspect_plain: Numbers,
    reference_plain: Numbers,
    *,
    seed: int = 0,
    rounds: int = PERMUTATIONS,
) -> Learned:
    """Learns to tell suspects from references and tests whether that succeeds on images that were not learned from.

    The order of the images plays no part.

    Args:
        suspects, references: Log norms of each layer's gradient, (n, L) and (m, L).
        suspect_statistic, reference_statistic: The other statistic of the same images, (n,) and (m,); smaller = more
            member-like. It is one more column.
        suspect_plain, reference_plain: Plain features of the same images, (n, F) and (m, F); what they explain of each
            column is taken out.
        seed: Seed of folds and permutations.
        rounds: Number of permuted labellings.

    Returns:
        The scores with their p-values.

    Raises:
        InputError: NaN or infinity, or sets with other layers.
        MissingPackage: scikit-learn or scipy is not installed.
    """
    if suspects.shape[1] != references.shape[1]:
        raise InputError("the two sets were measured on different networks: measure both on one")
    norms, statistic = np.concatenate([suspects, references]), np.concatenate([suspect_statistic, reference_statistic])
    plain = np.concatenate([suspect_plain, reference_plain])
    for values, what in ((norms, "gradients"), (statistic, "statistics"), (plain, "features")):
        require_finite(values, f"the {what} of images")
    order = np.lexsort(np.column_stack([norms, statistic]).T[::-1])
    y = (order < len(suspects)).astype(float)
    columns = _unexplained(np.column_stack([norms, statistic])[order], plain[order])
    expected = _scaled(columns[:, :-1].mean(1)) + columns[:, -1]
    rng = np.random.default_rng(seed)
    labels = np.stack([y, *(rng.permutation(y) for _ in range(rounds))], 1)
    folds = min(FOLDS, len(suspects), len(references))
    scores = _out_of_fold(columns, labels, -EXPECTED * _scaled(expected), folds, seed)
    ranks = require("scipy.stats", "audit").rankdata(scores, axis=0)
    found = np.empty(len(order))
    found[order] = -scores[:, 0]
    # what was learned may be any difference: that of training has a direction
    towards = _apart(-expected[:, None], labels[:, :1])[0] > 0
    p_values = (_p_value(_apart(values, labels)) if towards else 1.0 for values in (scores, ranks))
    return Learned(found[: len(suspects)], found[len(suspects) :], *p_values)


def _unexplained(columns: Numbers, plain: Numbers) -> Numbers:
    """What a regression on plain features leaves of each column, with mean 0 and spread 1; constant columns are 0."""
    linear, scaling = require("sklearn.linear_model", "audit"), require("sklearn.preprocessing", "audit")
    scaled = scaling.StandardScaler().fit_transform(plain)
    model: Any = linear.Ridge(PLAIN_PENALTY).fit(scaled, columns)
    return _scaled(columns - model.predict(scaled))


def _scaled(columns: Numbers) -> Numbers:
    centred = columns - columns.mean(0)
    spread = centred.std(0)
    return centred / np.where(spread > 1e-9, spread, np.inf)


def _out_of_fold(columns: Numbers, labels: Numbers, expected: Numbers, folds: int, seed: int) -> Numbers:
    """(n, K) scores for each of K columns of labels: what is expected, and what the other folds teach beyond that."""
    selection, linear = require("sklearn.model_selection", "audit"), require("sklearn.linear_model", "audit")
    scores = np.empty_like(labels)
    for known, asked in selection.KFold(folds, shuffle=True, random_state=seed).split(columns):
        model: Any = linear.Ridge(PENALTY * columns.shape[1])
        model.fit(columns[known], labels[known] - expected[known, None])
        # without the intercept: it tells the share of labels in the other folds, and so betrays those of this one
        scores[asked] = model.predict(columns[asked]) - model.intercept_ + expected[asked, None]
    return scores


def _apart(scores: Numbers, labels: Numbers) -> Numbers:
    """Difference of mean scores between both labels, for each column."""
    ones = labels.sum(0)
    return (scores * labels).sum(0) / ones - (scores * (1 - labels)).sum(0) / (len(labels) - ones)


def _p_value(statistics: Numbers) -> float:
    """Share of all labellings that do as well as the true one, which comes first and counts, too."""
    return float((statistics >= statistics[0] - 1e-12 * abs(statistics[0])).mean())
