"""Who made this image? Every candidate is probed, and the answer may be that it was none of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..pixels import read_picture
from ..progress import Progress
from .candidates import NONE, Candidate, check_candidates
from .combination import AttributionCalibration
from .confounding import about
from .evidence import Evidence, gather, needs_prompts
from .gaussian import OWN

UNCALIBRATED, CONFOUNDED, LEARNED = "uncalibrated", "confounded", "learned from"
_NO_VERDICT = {
    UNCALIBRATED: "not calibrated",
    CONFOUNDED: "confounded, the candidates' images differ in what they show",
    LEARNED: "it is one of the images that were learned from",
}


@dataclass(frozen=True)
class Attribution:
    """The answer to who made one image.

    Attributes:
        decision: "none of these" if the p-value is at most alpha, else the likeliest candidate, however likely. Or why
            there is no verdict: "uncalibrated" where nothing was learned from images of known makers, "confounded"
            where the likeliest candidate cannot be told from another but by what its images show, "learned from" for
            an image that is itself among those that were learned from.
        probabilities: Probability of each candidate and of "none of these", in [0, 1]; empty without a verdict.
        p_value: Share of the candidates' own images that look at least as odd; small = likely none of these. None
            without a verdict.
        distances: Squared distance from each candidate's own images, smaller = likelier it; where uncalibrated, each
            candidate's mean log error relative to the candidates' mean, smaller = likelier it.
        alpha: Share of the candidates' own images that may be called "none of these".
        evidence: Groups of evidence that it rests on.
        image: Name of the image, if it has one.
        fingerprints: Fingerprints of the candidates' models by name; empty where uncalibrated.
        warnings: What makes the answer less sure than it sounds, in sentences.
        conditional: Whether it holds only if the candidates' images were to show the same, which is not known.
    """

    decision: str
    probabilities: dict[str, float]
    p_value: float | None
    distances: dict[str, float]
    alpha: float | None
    evidence: tuple[str, ...]
    image: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    conditional: bool = False

    @property
    def verdict(self) -> bool:
        """Whether there is a verdict."""
        return self.decision not in _NO_VERDICT

    @property
    def margin(self) -> float | None:
        """How much likelier the likeliest outcome is than the next, in [0, 1]; None without a verdict."""
        if not self.probabilities:
            return None
        first, second = sorted(self.probabilities.values(), reverse=True)[:2]
        return first - second

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        if not self.verdict:
            return f"No verdict: {_NO_VERDICT[self.decision]}"
        sure = "Likely" if self.probabilities[self.decision] >= 0.5 else "Not clear, perhaps"
        answer = f"{sure} made by {self.decision}"
        return f"If all showed the same subjects: {answer[0].lower()}{answer[1:]}" if self.conditional else answer

    def notes(self) -> list[str]:
        """Returns sentences on what the answer rests on, and on what it does not say."""
        rest = f"Evidence: {', '.join(self.evidence)}."
        if self.decision == UNCALIBRATED:
            return [rest, "Without a calibration distances cannot be turned into probabilities."]
        if self.p_value is None:
            return [*self.warnings, rest]
        rate = f"Of the candidates' own images, {100 * self.p_value:.0f} % look at least as odd as this one"
        return [
            *self.warnings,
            f"{rate}; at {100 * (self.alpha or 0):g} % or less the verdict is none.",
            rest + " A likelihood for unaltered images, no proof.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, and for a sidecar's findings."""
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
            "warnings": list(self.warnings),
            "conditional": self.conditional,
        }

    def plot(self, width: int = 620) -> Any:
        """Returns a Pillow image `width` pixels wide: the probabilities as bars, or why there are none.

        Raises InputError where uncalibrated, MissingPackage without Pillow.
        """
        from .plots import attribution_plot

        if self.decision == UNCALIBRATED:
            raise InputError("without a calibration there are no probabilities to draw: calibrate first")
        return attribution_plot(self, width=width)


def attribute(
    images: Any,
    candidates: Sequence[Candidate] | Mapping[str, Any],
    calibration: AttributionCalibration | None = None,
    *,
    prompts: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[Attribution]:
    """Tells which candidate likely made each of these images, or that none of them did.

    Args:
        images: One or more files, Pillow images, arrays (H, W, 3) or tensors (3, H, W); see `read_picture`.
        candidates: The models that come into question, or pipelines or denoisers by name.
        calibration: What `calibrate_attribution` learned for these candidates. Without it there is no verdict.
        prompts: The images' prompts, if known; much stronger evidence than the images alone.
        progress: Called with the numbers of candidates done and of all.

    Returns:
        One answer per image.

    Raises:
        InputError: Unusable images, candidates or prompts; prompts where the calibration knows none.
        CalibrationError: The calibration is for other candidates.
        NotApplicable: A candidate cannot read images or prompts.
        NonFiniteError: A model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
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
        if needs_prompts(groups) != (texts is not None):
            raise InputError(_prompt_mismatch(needs_prompts(groups)))
    evidence = gather(pictures, pool, texts, groups=groups, progress=progress)
    attributions = answers(evidence, calibration, names)
    if calibration is None:
        return attributions
    return [_compared(one, picture, calibration) for one, picture in zip(attributions, pictures, strict=True)]


def answers(
    evidence: Evidence, calibration: AttributionCalibration | None, names: Sequence[str | None] | None = None
) -> list[Attribution]:
    """Returns what evidence amounts to, one answer per image, with the images' names if given.

    Raises InputError for NaN or infinity, CalibrationError for evidence that the calibration does not fit.
    """
    evidence.require_finite()
    names, groups = names or [None] * len(evidence), tuple(evidence.groups)
    if calibration is None:
        return [
            Attribution(UNCALIBRATED, {}, None, dict(zip(evidence.names, row, strict=True)), None, groups, name)
            for row, name in zip(_plain_distances(evidence).tolist(), names, strict=True)
        ]
    judged = calibration.judge(evidence)
    outcomes = (*evidence.names, NONE)
    attributions = []
    for i, name in enumerate(names):
        p = float(judged.p_values[i])
        decision = NONE if p <= calibration.alpha else outcomes[int(judged.distances[i].argmin())]
        answer = Attribution(
            decision=decision,
            probabilities=dict(zip(outcomes, judged.probabilities[i].tolist(), strict=True)),
            p_value=p,
            distances=dict(zip(evidence.names, judged.distances[i].tolist(), strict=True)),
            alpha=calibration.alpha,
            evidence=groups,
            image=name,
            fingerprints=dict(zip(calibration.names, calibration.fingerprints, strict=True)),
            warnings=tuple(f"Of the images that were learned from, {why}." for why in _doubts(calibration)),
        )
        attributions.append(_qualified(answer, calibration))
    return attributions


def _doubts(calibration: AttributionCalibration) -> list[str]:
    return [f"{calibration.copies} more were copies and counted once"] if calibration.copies else []


def _qualified(answer: Attribution, calibration: AttributionCalibration) -> Attribution:
    """The answer with what the images that were learned from leave open about the candidate that it names."""
    blocked, open_ = (about(why, answer.decision) for why in (calibration.confounded, calibration.unchecked))
    if blocked:
        remedy = "Images to learn from must be of the same prompts for all candidates: learn again from such."
        return _without_verdict(answer, CONFOUNDED, *(f"{why}." for why in blocked), remedy)
    if open_:
        reason = "What the candidates' images were to show is not known, and plain image features tell them apart"
        return replace(
            answer,
            conditional=True,
            warnings=(f"{reason} ({'; '.join(open_)}): the answer may rest on that. Give prompts.", *answer.warnings),
        )
    return answer


def _compared(answer: Attribution, picture: Tensor, calibration: AttributionCalibration) -> Attribution:
    """The answer about a picture (1, 3, H, W), if it is none of those that were learned from."""
    same, similar = calibration.seen.same(picture), calibration.seen.similar(picture)
    if same is not None:
        reason = f"It was given as an image by {calibration.maker_of(same)}: an answer would only repeat that."
        return _without_verdict(answer, LEARNED, reason)
    if similar is not None:
        maker = calibration.maker_of(similar)
        why = f"It looks like an image that was learned from as one by {maker}, perhaps saved anew"
        return replace(answer, warnings=(f"{why}: then the answer only repeats that.", *answer.warnings))
    return answer


def _without_verdict(answer: Attribution, decision: str, *warnings: str) -> Attribution:
    return replace(answer, decision=decision, probabilities={}, p_value=None, conditional=False, warnings=warnings)


def _plain_distances(evidence: Evidence) -> Tensor:
    """(B, C): mean of the log errors relative to the candidates' mean."""
    errors = [values for name, values in evidence.groups.items() if name not in ("pull", *OWN)]
    parts = [values - values.mean(1, keepdim=True) for values in errors]
    return sum(part.mean(-1) for part in parts) / len(parts)  # type: ignore[return-value]


def _prompt_mismatch(wanted: bool) -> str:
    if wanted:
        return "this calibration was made with prompts: give each image's prompt, or calibrate without"
    return "this calibration was made without prompts: leave the prompts out, or calibrate with them"
