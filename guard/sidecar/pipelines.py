"""What a diffusers pipeline tells about itself, for the sidecar."""

import os
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from ..errors import require
from .statement import Generation


def generation_of(
    pipe: Any,
    report: Any = None,
    *,
    seed: int | str | None = None,
    prompt: str | None = None,
    negative: str | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Generation:
    """How a pipeline made an image.

    Args:
        pipe: The diffusers pipeline.
        report: A MemorizationReport, for the model's fingerprint, or None.
        seed: Of the image's generator.
        prompt: By default that of the report.
        negative: The negative prompt.
        sampling: Settings of the call, e.g. steps and guidance_scale.
    """
    known = {"pipeline": type(pipe).__name__, "scheduler": type(getattr(pipe, "scheduler", None)).__name__}
    model = {"role": "model", "name": _name(pipe), "fingerprint": getattr(report, "fingerprint", None)}
    return Generation(
        host=f"diffusers {require('diffusers', 'diffusers').__version__}",
        models=[model, *({"role": "lora", "name": name} for name in _adapters(pipe))],
        sampling={**known, **(sampling or {})},
        seed=seed,
        prompt=prompt,
        negative=negative,
    )


def _name(pipe: Any) -> str:
    """A repository's name as it is; of a path the last part only, for the rest tells of the user's machine."""
    name = str(getattr(pipe, "name_or_path", None) or type(pipe).__name__)
    if os.path.exists(name) or os.path.isabs(name) or "\\" in name or name.startswith((".", "~")):
        return PureWindowsPath(name).name or type(pipe).__name__
    return name


def _adapters(pipe: Any) -> list[str]:
    """Names of the active LoRAs, where the pipeline can have any and can tell."""
    ask = getattr(pipe, "get_active_adapters", None)
    try:
        return [] if ask is None else [str(name) for name in ask()]
    except (ImportError, ValueError, AttributeError):  # without peft, or without any adapter
        return []
