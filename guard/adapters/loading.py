"""Loads a pipeline from disk: never from the network, never from a pickle, never with code of its own."""

from pathlib import Path
from typing import Any

from ..errors import InputError, require
from ..printable import first_line, printable
from .model_folder import LOAD_ERRORS, components, pipeline_class, read_index, require_no_code
from .single_file import load_file
from .weight_files import PICKLES, check_weights, checked


def load_pipeline(model: str) -> Any:
    """Returns a diffusers pipeline.

    Args:
        model: A diffusers folder (one with model_index.json), of torch weights or of ONNX files (see `onnx_loading`),
            or a .safetensors file that holds a whole model.

    Raises:
        InputError: It cannot be loaded; one line says what, why and what to do.
        MissingPackage: diffusers is not installed.
    """
    path = _existing(model)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run code when it is loaded: convert it to .safetensors, or use such a copy"
        )
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is not a .safetensors file: give a diffusers folder or a .safetensors file")
    return load_file(path)


def _existing(model: str) -> Path:
    try:
        path = Path(model).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or no such user
        raise InputError(f"{printable(model)} is no path ({first_line(error)}): give one") from error
    raise InputError(
        f"{printable(model)} does not exist: give a diffusers folder or a .safetensors file; nothing is downloaded here"
    )


def _load_folder(path: Path) -> Any:
    """A folder in diffusers' layout."""
    from .onnx_loading import holds_onnx, load_onnx

    index = read_index(path)
    if holds_onnx(path):
        return load_onnx(path)
    cls = pipeline_class(path, index)
    require_no_code(path, index)
    # bytes need no vocabulary
    variant = check_weights(path, [name for name in components(index) if index[name][1] != "ByT5Tokenizer"])
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if variant:
        options["variant"] = variant
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    # what the folder says is not there, is not there; diffusers takes some of it for missing
    options |= {name: None for name, value in index.items() if isinstance(value, list) and value[0] is None}
    require("accelerate", "diffusers")  # without it diffusers draws missing weights at random, and says so in passing
    try:
        pipe = cls.from_pretrained(str(path), **options)
    except LOAD_ERRORS as error:
        raise InputError(
            f"{path} cannot be loaded ({first_line(error)}): its weights and configs do not fit together or are "
            "incomplete; get the folder again"
        ) from error
    return checked(pipe, path)
