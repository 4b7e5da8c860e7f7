"""From a measurement and a calibration to verdicts and reports: the one place where a verdict is given."""

from collections.abc import Sequence
from typing import NamedTuple

from .calibration import Calibration
from .calibration_source import CalibrationSource
from .denoiser import Condition, Denoiser
from .errors import InputError, NotApplicable
from .protocols import TextDenoiser
from .report import MemorizationReport, Verdict
from .signals.draws import DRAWS, FixedDraws
from .signals.memorization import MemorizationResult, memorization_score, score_on

TRUNCATED = "the prompt is longer than the text encoder reads: it was checked as the pipeline truncates it"
WEIGHED = "the score weighs alignment, too, as prompts taught that this model is known to have memorized"
BY_WORDS = "less what its words lead to expect"


class Judgement(NamedTuple):
    """The judgement on one prompt.

    Attributes:
        score: Higher = more likely memorized.
        p_value: In (0, 1], small = unlike benign prompts; None without a calibration.
        verdict: One of `report.Verdict`.
    """

    score: float
    p_value: float | None
    verdict: Verdict


def judge(measured: MemorizationResult, calibration: Calibration | None) -> list[Judgement]:
    """Returns one judgement per prompt of a measurement: "memorized" where p <= alpha, else "clear".

    Without a calibration the score is the raw one, and the verdict "uncalibrated".

    Raises:
        CalibrationError: It was measured with another number of draws.
        NonFiniteError: The measurement holds NaN or infinity.
    """
    if calibration is None:
        return [Judgement(score, None, "uncalibrated") for score in measured.score.tolist()]
    scores = calibration.score(measured)
    return [
        Judgement(score, p_value, "memorized" if p_value <= calibration.alpha else "clear")
        for score, p_value in zip(scores.tolist(), calibration.p_of(scores).tolist(), strict=True)
    ]


def reports_on(
    denoiser: Denoiser,
    prompts: Sequence[str | None],
    measured: MemorizationResult,
    calibration: Calibration | None,
    *,
    seed: int,
    fingerprint: str,
    reason: str | None = None,
) -> list[MemorizationReport]:
    """Returns one report per prompt of a measurement; errors as in `judge`.

    Args:
        denoiser: The model.
        prompts: The prompts' texts, where known.
        measured: The measurement, one row per prompt.
        calibration: The calibration, known to fit, or None.
        seed: The noise's seed.
        fingerprint: The model's fingerprint, as it was measured.
        reason: Why there is no calibration.
    """
    rows_each = -(-measured.forward_rows // len(prompts))
    return [
        MemorizationReport(
            prompt=prompt,
            verdict=judged.verdict,
            score=judged.score,
            iso=measured.iso[i].item(),
            aniso=None if measured.aniso is None else measured.aniso[i].item(),
            p_value=judged.p_value,
            alpha=None if calibration is None else calibration.alpha,
            reason=reason if calibration is None else None,
            note=_note(denoiser, prompt, calibration),
            seed=seed,
            draws=measured.draws,
            forward_rows=rows_each,
            fingerprint=fingerprint,
            calibration_id=None if calibration is None else calibration.identity,
            reference=denoiser.reference,
        )
        for i, (prompt, judged) in enumerate(zip(prompts, judge(measured, calibration), strict=True))
    ]


def not_applicable(
    denoiser: Denoiser, prompt: str | None, reason: str, *, seed: int, draws: int = 0
) -> MemorizationReport:
    """Returns the report where the question has no meaning, or could not be answered."""
    return MemorizationReport(
        prompt=prompt,
        verdict="not applicable",
        score=None,
        iso=None,
        aniso=None,
        p_value=None,
        alpha=None,
        reason=reason,
        note=None,
        seed=seed,
        draws=draws,
        forward_rows=0,
        fingerprint=_fingerprint(denoiser),
        calibration_id=None,
    )


def check(
    denoiser: Denoiser,
    prompts: Sequence[str | None],
    condition: Condition,
    calibrations: CalibrationSource,
    *,
    seed: int = 0,
    draws: int | None = None,
    shape: tuple[int, int, int] | None = None,
    alignment: bool = False,
    batch_rows: int | None = None,
    kept: FixedDraws | None = None,
) -> list[MemorizationReport]:
    """Measures conditions, all on the same noise, and returns a report on each.

    Args:
        denoiser: The model.
        prompts: The prompts' texts, where known.
        condition: The prompts' conditions, one row each.
        calibrations: Where the calibration comes from.
        seed: The noise's seed.
        draws: The number of noise draws, by default as calibrated, else 4.
        shape: The latent's shape (C, H, W), by default the model's own.
        alignment: Also measure aniso, which takes part in no verdict and doubles the rows.
        batch_rows: Most rows a call has; see `batching.rows_per_call`.
        kept: What earlier checks were told about the empty prompt, so that it is not asked again.

    Raises:
        InputError: Zero draws.
        CalibrationError: The calibration is for another model or other settings.
        NonFiniteError, OutOfMemory: As in `memorization_score`.
    """
    try:
        denoiser.require_guidance()
    except NotApplicable as why:
        return [not_applicable(denoiser, prompt, str(why), seed=seed, draws=draws or 0) for prompt in prompts]
    shape = shape or denoiser.latent_shape()
    fingerprint = denoiser.fingerprint
    calibration, reason = calibrations.find(denoiser, shape, draws, fingerprint)
    draws = draws if draws is not None else DRAWS if calibration is None else calibration.draws
    level = None
    if calibration is not None:
        calibration.require(denoiser, draws, shape, fingerprint)
        level = calibration.level(denoiser)
    draws_kept = kept or FixedDraws()
    guidance = draws_kept.guidance(denoiser, draws, seed, shape, fingerprint, level)
    try:
        if alignment:
            noise, level = guidance.noise, guidance.level
            measured = memorization_score(denoiser, condition, noise=noise, level=level, batch_rows=batch_rows)
        else:
            weighed = calibration is not None and calibration.combination.takes_alignment
            low = draws_kept.alignment(guidance) if weighed else None
            measured = score_on(guidance, condition, batch_rows, low)
    except NotApplicable as why:
        return [not_applicable(denoiser, prompt, str(why), seed=seed, draws=draws) for prompt in prompts]
    return reports_on(denoiser, prompts, measured, calibration, seed=seed, fingerprint=fingerprint, reason=reason)


def _fingerprint(denoiser: Denoiser) -> str | None:
    try:
        return denoiser.fingerprint
    except (InputError, NotApplicable):  # what cannot be told apart may be why there is no verdict
        return None


def _note(denoiser: Denoiser, prompt: str | None, calibration: Calibration | None) -> str | None:
    notes = [WEIGHED] if calibration is not None and calibration.combination.takes_alignment else []
    if calibration is not None and calibration.expectation is not None and calibration.expectation.direction:
        notes.append(BY_WORDS)
    if isinstance(denoiser, TextDenoiser) and prompt is not None and denoiser.truncated(prompt):
        notes.append(TRUNCATED)
    return "; ".join(notes) or None
