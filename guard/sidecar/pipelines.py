"""What a diffusers pipeline tells about itself, for the sidecar."""

from collections.abc import Mapping
from typing import Any

from ..errors import require
from ..report import MemorizationReport
from .statement import Generation


def generation_of(
    pipe: Any,
    report: MemorizationReport | Mapping[str, Any] | None = None,
    *,
    seed: int | str | None = None,
    prompt: str | None = None,
    negative: str | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Generation:
    """Returns how a pipeline made an image.

    Args:
        pipe: The diffusers pipeline.
        report: The report on the image, or what its to_dict gave: for the model's fingerprint, and, of a guarded call
            whose report it is, for all that follows.
        seed: Seed of the image's generator; by default what the guard saw, as are the next.
        prompt: The prompt; by default that of the report.
        negative: The negative prompt.
        sampling: Settings of the call, e.g. steps and guidance_scale; they take precedence over what the guard saw.

    Raises:
        MissingPackage: diffusers is not installed.
    """
    from ..adapters.about import adapters_of, name_of, scheduler_of  # here: the rest of sidecars needs no torch

    told = report.get("fingerprint") if isinstance(report, Mapping) else getattr(report, "fingerprint", None)
    call = report.call if isinstance(report, MemorizationReport) else None
    known: dict[str, Any] = {"pipeline": type(pipe).__name__}
    known["scheduler"] = scheduler_of(pipe) if call is None else call.scheduler
    if call is not None:
        known |= call.settings
        seed = call.seed if seed is None else seed
        negative = call.negative if negative is None else negative
        if seed is None:
            known["why_no_seed"] = call.no_seed
    model = {"role": "model", "name": name_of(pipe), "fingerprint": told}
    return Generation(
        host=f"diffusers {require('diffusers', 'diffusers').__version__}",
        models=[model, *({"role": "lora", "name": name} for name in adapters_of(pipe))],
        sampling={**known, **(sampling or {})},
        seed=seed,
        prompt=prompt,
        negative=negative,
    )
