"""What a diffusers pipeline tells about itself, for the sidecar."""

import os
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from ..errors import require
from ..report import MemorizationReport
from .statement import Generation

_SAYS_NOTHING = {
    "",
    "weights",
    "model",
    "models",
    "checkpoint",
    "checkpoints",
    "output",
    "pipeline",
    "pipe",
    "diffusers",
}
_CACHED = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\]")  # a repository in the hub's local cache


def generation_of(
    pipe: Any,
    report: MemorizationReport | None = None,
    *,
    seed: int | str | None = None,
    prompt: str | None = None,
    negative: str | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Generation:
    """How a pipeline made an image.

    Args:
        pipe: The diffusers pipeline.
        report: Of the image, or None: for the model's fingerprint, and, of a guarded call, for all that follows.
        seed: Of the image's generator; by default what the guard saw, as are the next.
        prompt: By default that of the report.
        negative: The negative prompt.
        sampling: Settings of the call, e.g. steps and guidance_scale; they come before what the guard saw.
    """
    call, fingerprint = (None, None) if report is None else (report.call, report.fingerprint)
    known: dict[str, Any] = {"pipeline": type(pipe).__name__}
    known["scheduler"] = type(getattr(pipe, "scheduler", None)).__name__ if call is None else call.scheduler
    if call is not None:
        known |= call.settings
        seed = call.seed if seed is None else seed
        negative = call.negative if negative is None else negative
        if seed is None:
            known["why_no_seed"] = call.no_seed
    model = {"role": "model", "name": _name(pipe), "fingerprint": fingerprint}
    return Generation(
        host=f"diffusers {require('diffusers', 'diffusers').__version__}",
        models=[model, *({"role": "lora", "name": name} for name in _adapters(pipe))],
        sampling={**known, **(sampling or {})},
        seed=seed,
        prompt=prompt,
        negative=negative,
    )


def _name(pipe: Any) -> str:
    """A repository's name as it is; of a path the folder's own name only, for the rest tells of the user's machine.

    A folder whose name says nothing, such as "weights", has the pipeline's class in its place.
    """
    name, own = str(getattr(pipe, "name_or_path", None) or ""), type(pipe).__name__
    cached = _CACHED.search(name)
    if cached:
        return cached.group(1).replace("--", "/")
    if os.path.exists(name) or os.path.isabs(name) or "\\" in name or name.startswith((".", "~")):
        name = PureWindowsPath(name).name
    return own if name.lower() in _SAYS_NOTHING or name.startswith((".", "~")) else name


def _adapters(pipe: Any) -> list[str]:
    """Names of the active LoRAs, where the pipeline can have any and can tell."""
    ask = getattr(pipe, "get_active_adapters", None)
    try:
        return [] if ask is None else [str(name) for name in ask()]
    except (ImportError, ValueError, AttributeError):  # without peft, or without any adapter
        return []
