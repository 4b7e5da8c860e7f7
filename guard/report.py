"""Results of checks and of mitigations: plain data for people and machines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import InputError
from .reference import Reference

Method = Literal["rewrite", "embed", "attenuate", "reseed"]
Verdict = Literal["memorized", "clear", "uncalibrated", "not applicable"]


@dataclass(frozen=True)
class WordChange:
    """One edit of a prompt.

    Attributes:
        kind: "drop", "swap", "insert", or "attenuate" for a word whose tokens are taken out of attention.
        word: The word of the original ("" for an insertion).
        became: What stands there now ("" for a drop, the word itself if it is attenuated).
        significance: The word's saliency, >= 0; higher = the score depends more on it.
    """

    kind: Literal["drop", "swap", "insert", "attenuate"]
    word: str
    became: str
    significance: float


@dataclass(frozen=True)
class Mitigation:
    """Result of mitigating one prompt.

    Attributes:
        method: What was tried.
        held: Whether the result passed a test on noise it was not made with.
        reason: Why it did not, or None.
        original, rewritten: The prompt before and after; both None where only embeddings are known. Without a
            rewriting they are equal.
        words: What was changed, in order; empty unless rewritten.
        score_before, score_after: The scores on the test noise; higher = more likely memorized. This and what follows
            is None where the method could not be carried out.
        p_before, p_after: The p-values of these scores.
        recall: The guidance similarity, how much the result pulls to the original's image, in [-1, 1]; also readable as
            `guidance_similarity`, under this name in stored reports.
        similarity: Cosine in [-1, 1] between the text conditions before and after; 1 for a reseed.
        forward_rows, backward_rows: Rows that went through the network, and that were differentiated.
    """

    method: Method
    held: bool
    reason: str | None
    original: str | None
    rewritten: str | None
    words: list[WordChange]
    score_before: float | None
    score_after: float | None
    p_before: float | None
    p_after: float | None
    recall: float | None
    similarity: float | None
    forward_rows: int
    backward_rows: int

    @property
    def guidance_similarity(self) -> float | None:
        """How much the result pulls to the original's image, in [-1, 1]; see `signals.guidance_similarity`."""
        return self.recall

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RegionReport:
    """How much of one image reproduces training data, and how that was measured.

    Attributes:
        share: Share of the image's pixels that the mask covers, in [0, 1]; None where the prompt has no verdict.
        peak: The map's highest values, in 1 / variance of the latent; the mask is where the map is above half of it.
        sigma: The noise level of the latent that the map was taken of.
        probes, smoothing: The map's number of random probes, and its smoothing in latent pixels.
        forward_rows: Rows of the network that the map cost.
    """

    share: float | None
    peak: float | None
    sigma: float
    probes: int
    smoothing: float
    forward_rows: int


@dataclass(frozen=True)
class CallReport:
    """How a guarded call made one image, as far as the guard saw it.

    Attributes:
        seed: The seed of the image's generator; None where it would not make the image again.
        no_seed: Why there is no seed, or None.
        negative: The negative prompt, or None.
        scheduler: The class of the scheduler.
        settings: Numbers and switches of the call by name: steps, guidance_scale, height, width, and what was given.
    """

    seed: int | None
    no_seed: str | None
    negative: str | None
    scheduler: str
    settings: dict[str, int | float | bool | str]


@dataclass(frozen=True)
class MemorizationReport:
    """Result of checking one prompt, or one image that is about to be sampled.

    Attributes:
        prompt: The prompt as given; None where a pipeline was given embeddings in its place.
        verdict: "memorized" (p_value <= alpha), "clear", "uncalibrated" or "not applicable".
        score: Higher = more likely memorized; the calibration's combination, or the raw score without one.
        iso, aniso: The measurements behind it (see signals.memorization); aniso is None for images about to be sampled,
            since it takes part in no verdict and would cost rows.
        p_value: Share of benign prompts that look at least as memorized, in (0, 1]; None if uncalibrated.
        alpha: The promised false-alarm rate; None if uncalibrated.
        reason: Why there is no verdict, or None.
        note: What else the user should know, e.g. that the prompt was truncated.
        seed, draws: The noise's seed and number of draws.
        forward_rows: Rows of the network this prompt cost; its share, in a batch.
        fingerprint: The model's fingerprint; None where its weights are out of reach.
        calibration_id: Digest of the calibration, or None.
        reference: What the prompt was compared with; see `reference`. None where nothing was measured.
        mitigation: What was tried as a mitigation, or None. The verdict is that of what is sampled in the end.
        region: How much of the image reproduces training data, if that was measured.
        call: How the image was made, if a guarded call made it.
    """

    prompt: str | None
    verdict: Verdict
    score: float | None
    iso: float | None
    aniso: float | None
    p_value: float | None
    alpha: float | None
    reason: str | None
    note: str | None
    seed: int
    draws: int
    forward_rows: int
    fingerprint: str | None
    calibration_id: str | None
    mitigation: Mitigation | None = None
    region: RegionReport | None = None
    call: CallReport | None = None
    reference: Reference | None = None

    @property
    def verified(self) -> bool:
        """Whether there is a verdict, be it "memorized" or "clear"."""
        return self.verdict in ("memorized", "clear")

    @property
    def memorized(self) -> bool:
        """True only for the verdict "memorized"."""
        return self.verdict == "memorized"

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values for JSON; seeds are strings, since readers of JSON lose large integers."""
        values: dict[str, Any] = asdict(self) | {"seed": str(self.seed)}
        if self.call is not None and self.call.seed is not None:
            values["call"]["seed"] = str(self.call.seed)
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "MemorizationReport":
        """Returns the report whose `to_dict` gave these values. Raises InputError where they are not a report's."""
        try:
            mitigation, region, call = (values.get(name) for name in ("mitigation", "region", "call"))
            fields = {**values, "seed": int(values["seed"])}
            if mitigation is not None:
                words = [WordChange(**change) for change in mitigation["words"]]
                fields["mitigation"] = Mitigation(**{**mitigation, "words": words})
            if region is not None:
                fields["region"] = RegionReport(**region)
            if call is not None:
                seed = call["seed"]
                fields["call"] = CallReport(**{**call, "seed": None if seed is None else int(seed)})
            return MemorizationReport(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no report of a check ({error}): give what its to_dict gave") from error
