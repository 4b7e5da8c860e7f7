"""Did this candidate make this image at all? Each candidate is judged by its own evidence alone.

Comparing candidates with each other tells which is likeliest, but not whether it was any of them: an image by an unseen
model may look like an average of them all. So each candidate's evidence is put in units of what its own images have,
and a logistic regression, with weights shared by all candidates, tells own images from those of others. Since it
learned from images of the other candidates, it knows what those of unseen models look like.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..finite import require_finite
from .evidence import Evidence
from .noise_errors import LOW, NOISY

PENALTY = 100.0  # on squared weights; chosen on the zoo's dev images


@dataclass(frozen=True)
class Verifier:
    """What own images look like, and what tells them from others'.

    Attributes:
        means: (C, F) mean evidence of each candidate's own images.
        spread: (F,) standard deviation of own images around their candidate's mean.
        weights: (2 F + 1,) weights of the evidence in these units, of its absolute values, and of one constant.
    """

    means: Tensor
    spread: Tensor
    weights: Tensor

    @staticmethod
    def learn(x: Tensor, maker: Tensor) -> "Verifier":
        """Returns what is learned from evidence (n, C, F) float64 of images whose makers (n,) are known.

        Raises InputError for NaN or infinity.
        """
        require_finite(x, "the numbers of images")
        count = x.shape[1]
        means = torch.stack([x[maker == m, m].mean(0) for m in range(count)])
        is_own = torch.nn.functional.one_hot(maker, count).bool()
        rest = (x - means)[is_own]
        spread = rest.square().mean(0).sqrt().clamp_min(1e-6)
        untrained = Verifier(means, spread, torch.zeros(2 * x.shape[2] + 1, dtype=torch.float64))
        return Verifier(means, spread, _logistic(untrained._units(x).flatten(0, 1), is_own.flatten()))

    def score(self, x: Tensor) -> Tensor:
        """Returns (n, C) float64 log odds that each candidate made each image, from evidence (n, C, F).

        Higher = likelier its own.

        Raises InputError for NaN or infinity, which would be called likely its own.
        """
        require_finite(x, "the numbers of images")
        return self._units(x) @ self.weights

    def _units(self, x: Tensor) -> Tensor:
        # far off in either direction is odd; what is farther than ten spreads says no more
        units = ((x - self.means) / self.spread).clamp(-10, 10)
        return torch.cat([units, units.abs(), torch.ones_like(units[..., :1])], -1)


def candidate_terms(evidence: Evidence) -> Tensor:
    """Returns (B, C, F) float64: evidence for each candidate that ignores the others and what the image shows.

    Errors with the prompt are taken relative to those without it at the same level, and those relative to their mean.
    """
    groups, parts = evidence.groups, []
    plain = [groups[name] for name in ("empty", "clean") if name in groups]
    for values in plain:
        parts.append(values - plain[0].mean(-1, keepdim=True))
    if "prompt" in groups:
        prompted = groups["prompt"].split([2 * len(NOISY), 2 * len(LOW)], -1)
        same = dict(zip(("empty", "clean"), prompted, strict=True))
        for name, values in same.items():
            values = values.unflatten(-1, (-1, 2))
            parts.append((values - groups[name].unsqueeze(-1) if name in groups else values).flatten(-2))
    whole = ("bands", "coherence", "inversion", "autoencoder", "signature")
    parts += [groups[name] for name in whole if name in groups]
    # what the pull tells of a candidate alone is in the errors with the prompt, which tell it better
    return torch.cat(parts or [groups["pull"]], -1)


def _logistic(x: Tensor, is_own: Tensor) -> Tensor:
    """Weights (F,) of a penalised logistic regression; own images and others weigh the same altogether."""
    share = is_own.double().mean()
    weight = torch.where(is_own, 0.5 / share, 0.5 / (1 - share))
    sign = torch.where(is_own, 1.0, -1.0).double()
    weights = torch.zeros(x.shape[1], dtype=torch.float64)
    # Newton's method: convex, and few enough weights for an exact step
    ridge = torch.full((x.shape[1],), PENALTY, dtype=torch.float64)
    ridge[-1] = 1e-6
    for _ in range(30):
        wrong = torch.sigmoid(-sign * (x @ weights))
        gradient = -(x * (weight * sign * wrong)[:, None]).sum(0) + ridge * weights
        curvature = (x * (weight * wrong * (1 - wrong))[:, None]).T @ x + torch.diag(ridge)
        step = torch.linalg.solve(curvature, gradient)
        weights = weights - step
        if step.abs().max() < 1e-9:
            break
    return weights
