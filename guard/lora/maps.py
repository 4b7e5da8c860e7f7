"""Where images of a LoRA's worst prompts are memorized: its curvature against its own base, the natural less-trained
model."""

from typing import Any

from ..localization import PROBES, STEPS, Location, locate
from ..progress import Progress
from ..report import MemorizationReport
from .applying import Applier
from .base import Base
from .results import MEMORIZED, LoraCheck, PromptFinding


def locate_finding(
    applier: Applier,
    check: LoraCheck,
    finding: PromptFinding,
    *,
    steps: int = STEPS,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    progress: Progress | None = None,
) -> Location:
    """Samples one image of a prompt with the LoRA at the check's highest strength, and maps where it is memorized.

    The map is the curvature difference between the model with the LoRA and its base, both with the prompt as their own
    text encoders read it; the mask is empty unless the prompt was found memorized by the LoRA.

    Args:
        applier: The LoRA's, on the model that was checked.
        check, finding: What was found, and the prompt of it.
        steps, guidance, height, width: As in `localization.locate`.
        progress: progress(done, total), in sampling steps.

    Raises:
        As `localization.locate`.
    """
    base: Any = Base(applier)
    with applier.at(check.strengths[-1]) as denoiser:
        return locate(
            denoiser,
            finding.text,
            report_of(check, finding),
            seed=check.seed,
            steps=steps,
            guidance=guidance,
            height=height,
            width=width,
            baseline=(base, base.encode(finding.text)),
            progress=progress,
        )


def report_of(check: LoraCheck, finding: PromptFinding) -> MemorizationReport:
    """Returns a finding as the report that maps and images carry: its verdict is about the LoRA, not about its base."""
    return MemorizationReport(
        prompt=finding.text,
        verdict="memorized" if finding.finding == MEMORIZED else "clear",
        score=finding.at_last.score,
        iso=None,
        aniso=None,
        p_value=finding.p_value,
        alpha=check.alpha,
        reason=None,
        note=f"with {check.lora} at strength {check.strengths[-1]:g}, against its base",
        seed=check.seed,
        draws=check.draws,
        forward_rows=check.forward_rows // max(1, len(check.prompts) + len(check.benign[0])),
        fingerprint=check.fingerprints[-1],
        calibration_id=None,
        reference=check.reference,
    )


def rows_of_map(guided: bool) -> int:
    """Returns the rows of the network that an image of 50 steps and its map cost together."""
    from ..localization import rows_of_map as of_map

    return STEPS * (2 if guided else 1) + of_map(PROBES, known=False)
