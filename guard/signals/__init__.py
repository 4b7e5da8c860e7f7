"""What can be read off a denoiser: pure functions of a Denoiser and tensors."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # cryptomnesia.signals.memorization works without importing it by name
    if name in ("baselines", "curvature", "lineage", "membership", "memorization", "rings", "spectral"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
