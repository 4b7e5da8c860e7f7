"""Who made this image? Every candidate is probed, and the answer may be that it was none of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import InputError
from .candidates import NONE, Candidate, check_candidates
from .combination import ALPHA, AttributionCalibration, check_counts, learn
from .evidence import Evidence, gather
from .pictures import read_picture

UNCALIBRATED = "uncalibrated"


@dataclass(frozen=True)
class Attribution:
    """Who made one image.

    Attributes:
        decision: "none of these" if the p-value is at most alpha, else the likeliest candidate, however likely; or
            "uncalibrated" where nothing was learned from images of known makers.
        probabilities: Of each candidate and of "none of these"; empty where uncalibrated.
        p_value: Share of the candidates' own images that look at least as odd; small = likely none of these. None
            where uncalibrated.
        distances: Squared distance from each candidate's own images, smaller = likelier it; where uncalibrated, its
            mean error relative to the candidates' mean, likewise.
        alpha: Share of the candidates' own images that may be called "none of these".
        evidence: Groups of evidence that it rests on.
        image: Name of the image, if it has one.
        fingerprints: Of the candidates' models; empty where uncalibrated.
    """

    decision: str
    probabilities: dict[str, float]
    p_value: float | None
    distances: dict[str, float]
    alpha: float | None
    evidence: tuple[str, ...]
    image: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def margin(self) -> float | None:
        """How much likelier the likeliest outcome is than the next, in [0, 1]; None where uncalibrated."""
        if not self.probabilities:
            return None
        first, second = sorted(self.probabilities.values(), reverse=True)[:2]
        return first - second

    def headline(self) -> str:
        """The outcome in a few words."""
        if self.decision == UNCALIBRATED:
            return "No verdict: not calibrated"
        sure = "Likely" if self.probabilities[self.decision] >= 0.5 else "Not clear, perhaps"
        return f"{sure} made by {self.decision}"

    def notes(self) -> list[str]:
        """What it rests on, and what it does not say, in sentences."""
        rest = f"Evidence: {', '.join(self.evidence)}."
        if self.p_value is None:
            return [rest, "Without a calibration distances cannot be turned into probabilities."]
        rate = f"Of the candidates' own images, {100 * self.p_value:.0f} % look at least as odd as this one"
        return [
            f"{rate}; at {100 * (self.alpha or 0):g} % or less the verdict is none.",
            rest + " A likelihood for unaltered images, no proof.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, and for a sidecar's findings."""
        return {
            "kind": "attribution",
            "image": self.image,
            "decision": self.decision,
            "probabilities": self.probabilities,
            "p_value": self.p_value,
            "margin": self.margin,
            "distances": self.distances,
            "alpha": self.alpha,
            "evidence": list(self.evidence),
            "fingerprints": self.fingerprints,
        }

    def plot(self, width: int = 620) -> Any:
        """The probabilities as bars, a Pillow image. Raises InputError where uncalibrated."""
        from .plots import attribution_plot

        if not self.probabilities:
            raise InputError("without a calibration there are no probabilities to draw: calibrate first")
        return attribution_plot(self, width=width)


def attribute(
    images: Any,
    candidates: Sequence[Candidate] | Mapping[str, Any],
    calibration: AttributionCalibration | None = None,
    *,
    prompts: str | Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Attribution]:
    """Who made each of these images?

    Args:
        images: One or more files, Pillow images, arrays (H, W, 3) or tensors (3, H, W); see `read_picture`.
        candidates: The models that come into question, or pipelines or denoisers by name.
        calibration: What `calibrate_attribution` learned for these candidates. Without it there is no verdict.
        prompts: The images' prompts, if known; much stronger evidence than the images alone.
        progress: Called with the number of candidates done so far.

    Returns:
        One answer per image.

    Raises:
        InputError: Unusable images, candidates or prompts; prompts where the calibration knows none.
        CalibrationError: The calibration is for other candidates.
        NotApplicable, NonFiniteError, OutOfMemory: As they say.
    """
    pool = check_candidates(candidates)
    many = list(images) if isinstance(images, list | tuple) else [images]
    pictures = [read_picture(image, f"image {i + 1}") for i, image in enumerate(many)]
    if not pictures:
        raise InputError("no image was given: give at least one")
    names = [str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else None for image in many]
    texts = [prompts] * len(many) if isinstance(prompts, str) else prompts
    groups = None
    if calibration is not None:
        calibration.require(pool)
        groups = calibration.groups
        if ("prompt" in groups) != (texts is not None):
            raise InputError(_prompt_mismatch("prompt" in groups))
    evidence = gather(pictures, pool, texts, groups=groups, progress=progress)
    return answers(evidence, calibration, names)


def answers(
    evidence: Evidence, calibration: AttributionCalibration | None, names: Sequence[str | None] | None = None
) -> list[Attribution]:
    """What evidence amounts to, one answer per image. Raises InputError for NaN or infinity."""
    evidence.require_finite()
    names, groups = names or [None] * len(evidence), tuple(evidence.groups)
    if calibration is None:
        return [
            Attribution(UNCALIBRATED, {}, None, dict(zip(evidence.names, row, strict=True)), None, groups, name)
            for row, name in zip(_plain_distances(evidence).tolist(), names, strict=True)
        ]
    judged = calibration.judge(evidence)
    outcomes = (*evidence.names, NONE)
    found = []
    for i, name in enumerate(names):
        p = float(judged.p_values[i])
        nearest = outcomes[int(judged.distances[i].argmin())]
        found.append(
            Attribution(
                decision=NONE if p <= calibration.alpha else nearest,
                probabilities=dict(zip(outcomes, judged.probabilities[i].tolist(), strict=True)),
                p_value=p,
                distances=dict(zip(evidence.names, judged.distances[i].tolist(), strict=True)),
                alpha=calibration.alpha,
                evidence=groups,
                image=name,
                fingerprints=dict(zip(calibration.names, calibration.fingerprints, strict=True)),
            )
        )
    return found


def calibrate_attribution(
    images: Mapping[str, Sequence[Any]],
    candidates: Sequence[Candidate] | Mapping[str, Any],
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    groups: Sequence[str] | None = None,
    alpha: float = ALPHA,
    progress: Callable[[int], None] | None = None,
) -> AttributionCalibration:
    """Learns from images whose makers are known: at least 8 of each candidate, better 30.

    Args:
        images: By the name of their maker, as in `attribute`.
        candidates: As in `attribute`.
        prompts: Of the images, likewise; then prompts are needed for attribution, too.
        groups: Which evidence; see `evidence`.
        alpha: Share of the candidates' own images that may be called "none of these".
        progress: Called with the number of candidates done so far.

    Raises:
        InputError: A single candidate, too few images, of unknown makers, or unusable ones.
        NotApplicable, NonFiniteError, OutOfMemory: As they say.
    """
    pool = check_candidates(candidates)
    names = [candidate.name for candidate in pool]
    if sorted(images) != sorted(names) or (prompts is not None and sorted(prompts) != sorted(names)):
        raise InputError(f"images of known makers are needed for each of {', '.join(names)}, not {', '.join(images)}")
    check_counts({name: len(images[name]) for name in names}, alpha)  # before anything is measured
    for name, own in (prompts or {}).items():
        if len(own) != len(images[name]):
            raise InputError(f"{len(own)} prompts do not fit {len(images[name])} images by {name!r}: give one for each")
    pictures = [read_picture(image, f"an image by {name}") for name in names for image in images[name]]
    makers = [number for number, name in enumerate(names) for _ in images[name]]
    texts = None if prompts is None else [text for name in names for text in prompts[name]]
    evidence = gather(pictures, pool, texts, groups=groups, progress=progress)
    return learn(evidence, makers, [candidate.denoiser.fingerprint for candidate in pool], alpha=alpha)


def _plain_distances(evidence: Evidence) -> Tensor:
    """(B, C): mean of the log errors relative to the candidates' mean."""
    parts = [values - values.mean(1, keepdim=True) for values in evidence.groups.values()]
    return sum(part.mean(-1) for part in parts) / len(parts)  # type: ignore[return-value]


def _prompt_mismatch(wanted: bool) -> str:
    if wanted:
        return "this calibration was made with prompts: give each image's prompt, or calibrate without"
    return "this calibration was made without prompts: leave the prompts out, or calibrate with them"
