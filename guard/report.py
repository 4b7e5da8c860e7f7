"""What a check found, as plain data for people and machines."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["memorized", "clear", "uncalibrated", "not applicable"]


@dataclass(frozen=True)
class MemorizationReport:
    """Result of checking one prompt.

    Attributes:
        prompt: As given.
        verdict: "memorized" (p_value <= alpha), "clear", "uncalibrated" or "not applicable".
        score: Higher = more likely memorized; the calibration's combination, or the raw score without one.
        iso, aniso: The measurements behind it (see signals.memorization).
        p_value: Share of benign prompts that look at least as memorized, in (0, 1]; None if uncalibrated.
        alpha: The promised false-alarm rate; None if uncalibrated.
        reason: Why there is no verdict, or None.
        note: What else the user should know, e.g. that the prompt was truncated.
        seed, draws: Of the noise.
        forward_rows: Rows of the network this prompt cost; its share, in a batch.
        fingerprint: Of the model.
        calibration_id: Digest of the calibration, or None.
    """

    prompt: str
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
    fingerprint: str
    calibration_id: str | None

    @property
    def memorized(self) -> bool:
        """True only for the verdict "memorized"."""
        return self.verdict == "memorized"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the seed is a string, since readers of JSON lose large integers."""
        return asdict(self) | {"seed": str(self.seed)}
