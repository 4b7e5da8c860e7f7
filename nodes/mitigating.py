"""Check, mitigate if need be, and check again on fresh noise: what all mitigating nodes share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.denoiser import Condition
from ..guard.errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from ..guard.guard import Guard
from ..guard.mitigation.result import Mended
from ..guard.report import MemorizationReport
from ..guard.signals.draws import derived_seed
from ..guard.verdict import not_applicable
from . import calibrations
from .values import noted, start_shape, worst_of

Mitigate = Callable[[Guard, tuple[int, int, int]], Mended]


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
    mitigate: Mitigate | None = None,
) -> tuple[MemorizationReport, Condition | None]:
    """Checks a prompt, mitigates it if need be, and checks again.

    Where there is no calibration that fits, nothing is changed, and the report says why: a workflow goes on.

    Args:
        denoiser: The model that will sample.
        latent: The empty latent that sampling starts from.
        prompt: The prompt's text, where known.
        condition: The encoded prompt. Several rows are judged by the worst of them, and not mitigated.
        method: "rewrite" or "embed"; None to judge alone.
        when: "flagged" or "always".
        calibration: A file's name, "automatic" or "none".
        seed: The seed of all private noise.
        mitigate: What mitigates, given a guard and the latent's shape, by default `Guard.mitigate`; its condition is
            one that this denoiser can be asked about.

    Returns:
        The report on what is sampled in the end, and the mitigated condition; None where the prompt stays as it was.

    Raises:
        CalibrationError: The calibration that was chosen does not fit.
    """
    try:
        denoiser.require_guidance()
        shape = start_shape(denoiser.model, latent)
    except NotApplicable as reason:
        return not_applicable(denoiser, prompt, str(reason), seed=seed), None
    chosen, missing = calibrations.find(calibration, denoiser, None, shape)
    guard = Guard(denoiser, chosen, seed=seed)
    guard.why_uncalibrated = missing

    def judge(rows: Condition, purpose: str) -> MemorizationReport:
        private = seed if purpose == "before" else derived_seed(seed, purpose)
        reports = guard.judge([prompt] * len(rows), rows, seed=private, shape=shape)
        return noted(worst_of(reports), denoiser.note)

    before = judge(condition, "before")
    if method is None:
        return before, None
    if chosen is None:
        return noted(before, f"{method} needs a calibration: the prompt stays as it is"), None
    if when == "flagged" and not before.memorized:
        return before, None
    try:
        if len(condition) != 1:
            raise InputError(f"one prompt is mitigated at a time, and this conditioning holds {len(condition)}")
        if mitigate is None:
            result = guard.mitigate(prompt, method, condition=condition, shape=shape)
        else:
            result = mitigate(guard, shape)
    except (InputError, NotApplicable, NonFiniteError, OutOfMemory) as error:
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
