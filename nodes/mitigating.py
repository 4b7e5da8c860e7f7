"""Check, mitigate if need be, and check again on fresh noise: what the two mitigating nodes share."""

from dataclasses import replace
from typing import Any

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.denoiser import Condition
from ..guard.errors import NonFiniteError, NotApplicable, OutOfMemory
from ..guard.guard import Guard
from ..guard.report import MemorizationReport
from ..guard.signals.draws import derived_seed
from ..guard.verdict import not_applicable
from . import calibrations
from .values import noted, start_shape


def mitigated(
    denoiser: ComfyDenoiser,
    latent: dict[str, Any],
    prompt: str | None,
    condition: Condition,
    *,
    method: Any,
    when: str,
    calibration: str,
    seed: int,
) -> tuple[MemorizationReport, Condition | None]:
    """Checks a prompt, mitigates it if need be, and checks again.

    Args:
        denoiser: The model that will sample.
        latent: The empty latent that sampling starts from.
        prompt: The prompt's text, where known.
        condition: The encoded prompt, one row.
        method: "rewrite" or "embed".
        when: "flagged" or "always".
        calibration: A file's name, or "automatic".
        seed: The seed of all private noise.

    Returns:
        The report on what is sampled in the end, and the mitigated condition; None where the prompt stays as it was.

    Raises:
        InputError: There is no calibration for the model.
        CalibrationError: The one that was chosen does not fit.
    """
    try:
        denoiser.require_guidance()
        shape = start_shape(denoiser.model, latent)
    except NotApplicable as reason:
        return not_applicable(denoiser, prompt, str(reason), seed=seed), None
    chosen = calibrations.require(calibration, denoiser, shape)
    guard = Guard(denoiser, chosen, seed=seed)

    def judge(row: Condition, purpose: str) -> MemorizationReport:
        private = seed if purpose == "before" else derived_seed(seed, purpose)
        report = guard.judge([prompt], row, seed=private, draws=chosen.draws, shape=shape)[0]
        return noted(report, denoiser.note)

    before = judge(condition, "before")
    if when == "flagged" and not before.memorized:
        return before, None
    try:
        result = guard.mitigate(prompt, method, condition=condition, shape=shape)
    except (NotApplicable, NonFiniteError, OutOfMemory) as error:
        # what cannot be mitigated stays flagged, and a gate can stop it
        return noted(before, f"{method} was not possible: {error}"), None
    about, better = result.mitigation, result.condition
    if not about.held or better is None:
        return replace(before, mitigation=about), None
    after = judge(better, "after")
    if after.memorized:
        about = replace(about, held=False, reason="it did not hold on further noise")
        return replace(before, mitigation=about), None
    return replace(after, prompt=about.rewritten, mitigation=about), better
