"""The score that tells whether an image is by any candidate, and what of it is learned by leaving candidates out."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .evidence import Evidence
from .gaussian import Gaussian, vectors
from .verification import Verifier, candidate_terms, logistic

FOLDS = 5
MOST_LEEWAY = 3.0
USUAL = 0.75  # share of held-out images that are no farther than usual; chosen on the zoo's calibration images


def score_parts(distances: Tensor, verified: Tensor) -> Tensor:
    """Returns (B, 2), verification score and distance of the nearest maker, of distances and scores (B, C)."""
    nearest = distances.min(1, keepdim=True)
    return torch.cat([verified.gather(1, nearest.indices), nearest.values], 1)


def scores_of(parts: Tensor, leeway: float, usual: tuple[float, float]) -> Tensor:
    """Returns the scores (B,) of parts (B, 2); higher = likelier one of the candidates."""
    return parts[:, 0] + leeway * _outside(parts, usual)


def usual_distances(parts: Tensor) -> tuple[float, float]:
    """Returns the distances of held-out images, parts (n, 2), between which one is neither plain nor beyond all."""
    distances = parts[:, 1].clamp_min(1e-6)
    return float(distances.quantile(USUAL)), float(distances.max())


def threshold_of(held_out: Tensor, alpha: float) -> float:
    """Returns the score of sorted ones (n,), up to which a share alpha lies at most."""
    return float(held_out[max(0, math.floor(alpha * (len(held_out) + 1)) - 1)])


def judge_held_out(evidence: Evidence, maker: Tensor) -> tuple[Tensor, Tensor]:
    """Returns distances (n, C) and parts of the score (n, 2) of images that took no part in learning."""
    x, terms, c = vectors(evidence), candidate_terms(evidence), len(evidence.names)
    distances, parts = torch.zeros(len(x), c, dtype=torch.float64), torch.zeros(len(x), 2, dtype=torch.float64)
    for test in _folds(maker):
        distances[test] = Gaussian.learn(x[~test], maker[~test], c).distance(x[test])
        verified = Verifier.learn(terms[~test], maker[~test]).score(terms[test])
        parts[test] = score_parts(distances[test], verified)
    return distances, parts


def judge_left_out(evidence: Evidence, maker: Tensor, candidate: int) -> tuple[Tensor, Tensor]:
    """Returns parts of the score of the others' held-out images and of a candidate's own, were it not in the list."""
    known, rest = maker != candidate, evidence.without(candidate)
    others = maker[known] - (maker[known] > candidate).long()
    x, terms = vectors(rest), candidate_terms(rest)
    distances = Gaussian.learn(x[known], others, len(rest.names)).distance(x[~known])
    unseen = score_parts(distances, Verifier.learn(terms[known], others).score(terms[~known]))
    return judge_held_out(rest[known], others)[1], unseen


def learn_leeway(left_out: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Returns the weight of unusual distances with which a logistic regression tells listed images from unseen best."""
    rows, listed = [], []
    for known, unseen in left_out:
        usual = usual_distances(known)
        for parts in (known, unseen):
            rows.append(torch.stack([parts[:, 0], _outside(parts, usual)], 1))
            listed.append(torch.full((len(parts),), parts is known))
    x = torch.cat(rows)
    spread = x.std(0).clamp_min(1e-9)
    units = torch.cat([(x - x.mean(0)) / spread, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    verified, outside = (logistic(units, torch.cat(listed))[:2] / spread).tolist()
    return min(MOST_LEEWAY, max(0.0, outside / verified)) if verified > 0 else 0.0


def learn_slope(scores: Tensor, left_out: Sequence[tuple[Tensor, Tensor]], leeway: float, alpha: float) -> float:
    """Returns how fast odd becomes none: from each candidate's images, were it not in the list, against all others."""
    unseen = []
    for known, own in left_out:  # each shorter list has a threshold of its own
        usual = usual_distances(known)
        threshold = threshold_of(scores_of(known, leeway, usual).sort().values, alpha)
        unseen.append(threshold - scores_of(own, leeway, usual))
    odd = torch.cat(unseen)
    listed = threshold_of(scores.sort().values, alpha) - scores
    prior = 1 / (len(left_out) + 1)  # an unseen model is as likely as any candidate
    grid = torch.logspace(-1.5, 1.5, 61, dtype=torch.float64)

    def loss(slope: float) -> float:
        log = torch.nn.functional.logsigmoid
        return float(-prior * log(slope * odd).mean() - (1 - prior) * log(-slope * listed).mean())

    losses = [loss(float(slope)) for slope in grid]
    return float(grid[losses.index(min(losses))])


def _outside(parts: Tensor, usual: tuple[float, float]) -> Tensor:
    """(B,) <= 0, the logarithm of how much nearer than usual, or farther, a distance is."""
    distances, (near, far) = parts[:, 1].clamp_min(1e-6), usual
    return (distances / near).clamp(max=1).log() - (distances / far).clamp(min=1).log()


def _folds(maker: Tensor) -> list[Tensor]:
    """Masks (n,) of the images held out in turn; each maker's are shared out evenly, in order."""
    fold_of = torch.zeros_like(maker)
    for m in maker.unique():
        rows = (maker == m).nonzero().flatten()
        fold_of[rows] = torch.arange(len(rows)) % FOLDS
    return [fold_of == fold for fold in range(FOLDS)]
