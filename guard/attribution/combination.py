"""From evidence to probabilities: who made this image, or none of these?

Learned from images whose makers are known. A shrunk Gaussian model turns evidence into squared distances d to each
maker; softmax(-d / 2T) is who it was, if any of them, with the temperature T that makes held-out images likeliest. The
verification score of the nearest maker tells whether it was any of them: its conformal p-value among held-out images
promises that at most a share alpha of the candidates' own images is called "none of these". The probability of that
outcome is logistic in threshold - score, so 1/2 at the threshold; its slope is learned by leaving each candidate out,
with "none of these" as likely beforehand as any candidate.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..calibration import conformal
from ..errors import CalibrationError, InputError
from .candidates import Candidate
from .confounding import Reasons, require_different
from .evidence import Evidence
from .gaussian import RELATIVE, Gaussian, vectors
from .likeness import Seen
from .verification import Verifier, candidate_terms

LEAST = 8  # images per maker
ENOUGH = 30  # images per maker, from which on more tell little
FOLDS = 5
ALPHA = 0.05


@dataclass(frozen=True)
class Judgement:
    """What a calibration makes of B images, float64.

    Attributes:
        probabilities: (B, C + 1) in [0, 1], the last for "none of these".
        p_values: (B,) share of the candidates' own images that look at least as odd; small = likely none of these.
        distances: (B, C) squared distance to each maker; smaller = likelier it.
        scores: (B,) verification score of the nearest maker; higher = likelier one of the candidates.
    """

    probabilities: Tensor
    p_values: Tensor
    distances: Tensor
    scores: Tensor


@dataclass(frozen=True)
class AttributionCalibration:
    """What was learned from images of known makers, for these candidates alone.

    Attributes:
        names, fingerprints: The candidates' names and fingerprints, in their order.
        groups: Groups of evidence that it needs.
        alpha: Share of the candidates' own images that may be called "none of these".
        temperature, slope: Parameters of the two probabilities; see the module.
        images: Number of images per maker.
        created: Date on which it was learned.
        gaussian: Tells which candidate is likeliest.
        verifier: Tells whether it was any of them.
        held_out: Verification scores of held-out images, sorted, (n,) float64.
        seen: The images, in the order of their makers; nothing is said about one of them.
        copies: Number of further images that were given and are the same as another of their maker.
        confounded: Why there is no verdict between two candidates, by their names.
        unchecked: How the images of two candidates differ in kind, where nothing tells what they were to show.
    """

    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    groups: tuple[str, ...]
    alpha: float
    temperature: float
    slope: float
    images: tuple[int, ...]
    created: str
    gaussian: Gaussian
    verifier: Verifier
    held_out: Tensor
    seen: Seen = field(default_factory=Seen)
    copies: int = 0
    confounded: Reasons = field(default_factory=dict)
    unchecked: Reasons = field(default_factory=dict)

    def maker_of(self, image: int) -> str:
        """Returns the name of the candidate that made the image of that number, counted over all in `seen`."""
        return next(name for name, last in zip(self.names, accumulate(self.images), strict=True) if image < last)

    @property
    def threshold(self) -> float:
        """Verification scores up to it mean "none of these"."""
        return float(self.held_out[math.floor(self.alpha * (len(self.held_out) + 1)) - 1])

    def judge(self, evidence: Evidence) -> Judgement:
        """Returns probabilities, p-values and distances for the images of the evidence.

        Raises CalibrationError if the evidence is of other kinds or candidates, InputError if it holds NaN or infinity.
        """
        evidence.require_finite()
        if evidence.names != self.names or set(evidence.groups) != set(self.groups):
            raise CalibrationError(
                f"this calibration is for the candidates {', '.join(self.names)} and evidence {', '.join(self.groups)},"
                f" not for {', '.join(evidence.names)} and {', '.join(evidence.groups)}: calibrate again"
            )
        distances = self.gaussian.distance(vectors(evidence))
        scores = _of_nearest(distances, self.verifier.score(candidate_terms(evidence)))
        none = torch.sigmoid(self.slope * (self.threshold - scores))
        known = torch.softmax(-distances / (2 * self.temperature), 1) * (1 - none)[:, None]
        probabilities = torch.cat([known, none[:, None]], 1)
        return Judgement(probabilities, conformal(-self.held_out, -scores), distances, scores)

    def require(self, candidates: Sequence[Candidate]) -> None:
        """Raises CalibrationError, saying what differs, unless it was made for these candidates in this order."""
        names = tuple(candidate.name for candidate in candidates)
        if names != self.names:
            raise CalibrationError(
                f"this calibration is for the candidates {', '.join(self.names)}, not {', '.join(names)}: "
                "give the same, in the same order, or calibrate again"
            )
        for candidate, fingerprint in zip(candidates, self.fingerprints, strict=True):
            if candidate.denoiser.fingerprint != fingerprint:
                raise CalibrationError(
                    f"the candidate {candidate.name!r} is another model than the one this calibration was made with: "
                    "calibrate again"
                )


def learn(
    evidence: Evidence, makers: Sequence[int] | Tensor, fingerprints: Sequence[str], *, alpha: float = ALPHA
) -> AttributionCalibration:
    """Learns a calibration from the evidence of images whose makers are known.

    Args:
        evidence: Evidence of n images under C candidates.
        makers: (n,) number of each image's maker among the candidates.
        fingerprints: Fingerprints of the candidates' denoisers.
        alpha: Share of the candidates' own images that may be called "none of these".

    Returns:
        The calibration, without the images themselves; see `calibrate_attribution` for these.

    Raises:
        InputError: A single candidate, two that are one model, one with fewer than 8 images, too few for alpha, or
            evidence that is not finite.
    """
    maker = torch.as_tensor(makers)
    count = _checked(evidence, maker, alpha)
    require_different(evidence)
    distances, scores = _held_out(evidence, maker)
    calibration = AttributionCalibration(
        names=evidence.names,
        fingerprints=tuple(fingerprints),
        groups=tuple(evidence.groups),
        alpha=alpha,
        temperature=_temperature(distances, maker),
        slope=1.0,
        images=count,
        created=datetime.date.today().isoformat(),
        gaussian=Gaussian.learn(vectors(evidence), maker, len(evidence.names)),
        verifier=Verifier.learn(candidate_terms(evidence), maker),
        held_out=scores.sort().values,
    )
    return replace(calibration, slope=_slope(evidence, maker, scores, calibration))


def check_counts(images: Mapping[str, int], alpha: float) -> None:
    """Raises InputError unless so many images by each maker are enough to learn from, and for the error rate alpha."""
    if len(images) < 2:
        raise InputError(f"{', '.join(images)} alone cannot be told from others: name a second candidate")
    for name, n in images.items():
        if n < LEAST:
            raise InputError(
                f"{n} images by {name!r} are too few: give at least {LEAST} of each candidate, better {ENOUGH}"
            )
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a share between 0 and 1, not {alpha}")
    total = sum(images.values())
    if alpha * (total + 1) < 1:
        least = math.ceil(1 / alpha) - 1
        raise InputError(
            f"{total} images cannot promise an error rate of {alpha}: give {least} or more in all, or raise alpha"
        )


def _held_out(evidence: Evidence, maker: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, C) and verification scores (n,) of images that took no part in learning."""
    x, terms, c = vectors(evidence), candidate_terms(evidence), len(evidence.names)
    distances, scores = torch.zeros(len(x), c, dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    for test in _folds(maker):
        distances[test] = Gaussian.learn(x[~test], maker[~test], c).distance(x[test])
        verified = Verifier.learn(terms[~test], maker[~test]).score(terms[test])
        scores[test] = _of_nearest(distances[test], verified)
    return distances, scores


def _of_nearest(distances: Tensor, scores: Tensor) -> Tensor:
    """(B,) of scores (B, C), those of the maker that is nearest."""
    return scores.gather(1, distances.argmin(1, keepdim=True)).squeeze(1)


def _checked(evidence: Evidence, maker: Tensor, alpha: float) -> tuple[int, ...]:
    if len(maker) != len(evidence):
        raise InputError(f"{len(maker)} makers do not fit {len(evidence)} images: name one for each")
    count = tuple(int((maker == m).sum()) for m in range(len(evidence.names)))
    check_counts(dict(zip(evidence.names, count, strict=True)), alpha)
    if not set(evidence.groups) & set(RELATIVE):
        raise InputError(f"{' and '.join(evidence.groups)} compare no candidates: add another group of evidence")
    evidence.require_finite()
    return count


def _folds(maker: Tensor) -> list[Tensor]:
    """Masks (n,) of the images held out in turn; each maker's are shared out evenly, in order."""
    fold_of = torch.zeros_like(maker)
    for m in maker.unique():
        rows = (maker == m).nonzero().flatten()
        fold_of[rows] = torch.arange(len(rows)) % FOLDS
    return [fold_of == fold for fold in range(FOLDS)]


def _temperature(distances: Tensor, maker: Tensor) -> float:
    """The temperature from a grid that makes the makers of held-out images likeliest."""
    grid = torch.logspace(-1, 2, 61, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(-distances / (2 * t), maker).item() for t in grid]
    return float(grid[losses.index(min(losses))])


def _slope(evidence: Evidence, maker: Tensor, scores: Tensor, calibration: AttributionCalibration) -> float:
    """How fast odd becomes none: from each candidate's images, had it not been in the list, against all others."""
    if len(evidence.names) < 3:  # without a third there is no unseen model to learn from: odd means none
        return 4.0
    # each shorter list has a threshold of its own
    unseen = torch.cat([_left_out(evidence, maker, m, calibration.alpha) for m in range(len(evidence.names))])
    listed = calibration.threshold - scores
    prior = 1 / (len(evidence.names) + 1)  # an unseen model is as likely as any candidate
    grid = torch.logspace(-1.5, 1.5, 61, dtype=torch.float64)

    def loss(slope: float) -> float:
        log = torch.nn.functional.logsigmoid
        return float(-prior * log(slope * unseen).mean() - (1 - prior) * log(-slope * listed).mean())

    losses = [loss(float(slope)) for slope in grid]
    return float(grid[losses.index(min(losses))])


def _left_out(evidence: Evidence, maker: Tensor, candidate: int, alpha: float) -> Tensor:
    """Threshold - score of a candidate's images where it is not in the list."""
    known, rest = maker != candidate, evidence.without(candidate)
    others = maker[known] - (maker[known] > candidate).long()
    _, known_scores = _held_out(rest[known], others)
    threshold = known_scores.sort().values[max(0, math.floor(alpha * (len(known_scores) + 1)) - 1)]
    x, terms = vectors(rest), candidate_terms(rest)
    distances = Gaussian.learn(x[known], others, len(rest.names)).distance(x[~known])
    return threshold - _of_nearest(distances, Verifier.learn(terms[known], others).score(terms[~known]))
