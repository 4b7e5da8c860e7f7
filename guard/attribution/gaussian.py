"""A shrunk Gaussian model of evidence: every maker has a mean of its own, and all share one covariance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..finite import require_finite
from .evidence import GROUPS, Evidence

RELATIVE = ("empty", "prompt", "pull", "clean", "inversion", "signature")
"""Groups that are compared among candidates: what they have in common is the image, not its maker."""
OWN = ("bands", "coherence")
"""Groups that are never compared among candidates; see `verification`."""


@dataclass(frozen=True)
class Gaussian:
    """Means and covariance of evidence, by maker.

    Attributes:
        spread: (D,) standard deviation of each number among images of one maker.
        means: (C, D) in these units.
        precision: (D, D), inverse of the shrunk covariance in these units.
    """

    spread: Tensor
    means: Tensor
    precision: Tensor

    @staticmethod
    def learn(x: Tensor, maker: Tensor, makers: int) -> "Gaussian":
        """Returns the model of vectors (n, D) float64 of images whose makers (n,) are known, at least two of each.

        The covariance is shrunk towards the identity (Ledoit & Wolf 2004), since there are more numbers than images.
        Raises InputError for NaN or infinity, as `distance` does.
        """
        require_finite(x, "the numbers of images")
        means = torch.stack([x[maker == m].mean(0) for m in range(makers)])
        rest = x - means[maker]
        spread = rest.square().mean(0).sqrt().clamp_min(1e-6)
        rest = rest / spread
        return Gaussian(spread, means / spread, torch.linalg.inv(shrunk_covariance(rest)))

    def distance(self, x: Tensor) -> Tensor:
        """Returns squared Mahalanobis distances (n, C) of x (n, D) to each maker's mean; smaller = likelier it."""
        require_finite(x, "the numbers of images")
        rest = (x / self.spread)[:, None] - self.means
        return ((rest @ self.precision) * rest).sum(-1)


def shrunk_covariance(rest: Tensor) -> Tensor:
    """Returns the (D, D) covariance of residuals (n, D), shrunk as is best for its size (Ledoit & Wolf 2004).

    Raises InputError for NaN or infinity.
    """
    require_finite(rest, "the residuals")
    n, size = rest.shape
    sample = rest.T @ rest / n
    target = sample.diagonal().mean() * torch.eye(size, dtype=rest.dtype)
    apart = (sample - target).square().sum()
    # mean over samples of ||x x' - S||^2 / n, without forming any x x'
    noise = (rest.square().sum(1).square().sum() / n - sample.square().sum()) / n
    share = float((noise / apart.clamp_min(1e-30)).clamp(0.01, 1))
    return (1 - share) * sample + share * target


def vectors(evidence: Evidence) -> Tensor:
    """Returns (B, D) float64: each group's numbers under every candidate, relative to their mean where that tells."""
    parts = []
    for name in (group for group in GROUPS if group in evidence.groups and group not in OWN):
        values = evidence.groups[name]
        if name in RELATIVE and values.shape[1] > 1:
            common = values.mean(1, keepdim=True)
            parts += [(values - common).flatten(1), common.flatten(1)]
        else:
            parts.append(values.flatten(1))
    return torch.cat(parts, 1)
