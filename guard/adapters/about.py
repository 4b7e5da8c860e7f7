"""What a diffusers pipeline tells about itself: its scheduler, its model's name, its LoRAs."""

import os
import re
from pathlib import PureWindowsPath
from typing import Any

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


def scheduler_of(pipe: Any) -> str:
    """Returns the name of the scheduler's class."""
    return type(getattr(pipe, "scheduler", None)).__name__


def name_of(pipe: Any) -> str:
    """Returns a repository's name, or of a path the last folder's, for the rest tells of the user's machine.

    A folder whose name says nothing, such as "weights", has the pipeline's class in its place.
    """
    name, kind = str(getattr(pipe, "name_or_path", None) or ""), type(pipe).__name__
    cached = _CACHED.search(name)
    if cached:
        return cached.group(1).replace("--", "/")
    if os.path.exists(name) or os.path.isabs(name) or "\\" in name or name.startswith((".", "~")):
        name = PureWindowsPath(name).name
    return kind if name.lower() in _SAYS_NOTHING or name.startswith((".", "~")) else name


def adapters_of(pipe: Any) -> list[str]:
    """Returns the names of the active LoRAs, where the pipeline can have any and can tell."""
    ask = getattr(pipe, "get_active_adapters", None)
    try:
        return [] if ask is None else [str(name) for name in ask()]
    except (ImportError, ValueError, AttributeError):  # without peft, or without any adapter
        return []
