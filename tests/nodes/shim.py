"""Lets torchvision and torchaudio be imported beside a torch they were not built for.

ComfyUI imports both; the operators missing here are never called by these tests.
"""

import ctypes
import importlib.machinery
import sys
import types
from pathlib import Path

_operators = []  # the definitions vanish with their library object


def add(packages: Path) -> None:
    """Puts the cache behind everything else on the path, and mends only what comes from there."""
    own_vision, own_audio = found("torchvision"), found("torchaudio")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
    if not own_vision and not loads(packages / "torchvision"):
        declare_operators()
    if not own_audio:
        silence_audio_extension()


def found(name: str) -> bool:
    return name in sys.modules or importlib.machinery.PathFinder.find_spec(name) is not None


def loads(package: Path) -> bool:
    """Whether the compiled part can be loaded; then it defines the operators itself."""
    import torch  # noqa: F401  the library hangs on torch's own

    try:
        return bool([ctypes.CDLL(str(part)) for part in package.glob("_C*.so")])
    except OSError:
        return False


def declare_operators() -> None:
    import torch

    if _operators:
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.append(library)


def silence_audio_extension() -> None:
    def nothing(*args, **options):
        return args[0] if args else None

    stub = types.ModuleType("torchaudio._extension")
    stub.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=nothing,
        _check_cuda_version=nothing,
    )
    sys.modules.setdefault("torchaudio._extension", stub)
