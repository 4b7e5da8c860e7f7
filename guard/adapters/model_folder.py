"""A model folder's own words: its JSON, read strictly, and refused where a loader could run code because of it.

diffusers before 0.38 runs code that lies in a local folder, and transformers before 5.3 fetches code that a config
names, both without being asked to. Whatever their version, here nothing is imported because a folder says so: its parts
come from diffusers and transformers alone, and that is made sure of before either looks at the folder.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, require
from ..printable import printable
from ..strict_json import read_object as json_object
from . import factory_for, supported

LIBRARIES = ("diffusers", "transformers")
# diffusers writes this for the safety checker, which is a part of it; it is never loaded here
_CHECKER = ("safety_checker", "stable_diffusion")
# parts of diffusers' own that its pipelines keep to themselves
_PIPELINE_PARTS = {
    ("text_encoder", "kolors", "ChatGLMModel"),
    ("tokenizer", "kolors", "ChatGLMTokenizer"),
}
_CODE_KEYS = {"auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "_module"}
_CODE_SUFFIXES = {".py", ".pyc", ".pyd", ".so"}
_SEARCHES = re.compile("Auto[A-Z]")  # AutoModel looks for a class by what the folder says; AutoencoderKL does not
_LIMIT = 16 * 2**20
# what diffusers, transformers and torch raise for files that do not fit together
LOAD_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)


def read_index(path: Path) -> dict[str, Any]:
    """Reads model_index.json, and returns it. Raises InputError where there is none, or no readable one."""
    file = path / "model_index.json"
    if not file.exists():
        lacking = [name for name in ("unet/ or transformer/", "vae/", "scheduler/") if not _any_part(path, name)]
        raise InputError(
            f"{path} is no diffusers folder: it lacks {', '.join(['model_index.json', *lacking])}; "
            "give the folder that pipe.save_pretrained(...) wrote"
        )
    return read_object(file)


def read_object(file: Path) -> dict[str, Any]:
    """Returns a config: one JSON object in a regular file. Raises InputError for anything else."""
    return json_object(file, _LIMIT, "config", "get the folder again", infinite=True)


def components(index: dict[str, Any]) -> list[str]:
    """Returns the names of the parts that the index says are there."""
    return [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]


def pipeline_class(path: Path, index: dict[str, Any]) -> Any:
    """Returns the class that the index names. Raises InputError unless it is a diffusers class that is supported."""
    name = index.get("_class_name")
    cls = getattr(require("diffusers", "diffusers"), name, None) if isinstance(name, str) else None
    # never a class from the folder's own code
    if not isinstance(cls, type) or factory_for(cls) is None:
        known = ", ".join(supported())
        raise InputError(f"{path} holds a {printable(name, 80)}, which is not supported: use one of {known}")
    return cls


def require_no_code(
    path: Path, index: dict[str, Any], parts: Iterable[str] | None = None, *, libraries: tuple[str, ...] = LIBRARIES
) -> None:
    """Makes sure that loading a folder runs no code but that of diffusers and transformers.

    Args:
        path: The folder.
        index: What the folder's model_index.json holds.
        parts: Names of the folders in it that are read, by default those that the index names.
        libraries: What the index may name.

    Raises:
        InputError: A part comes from elsewhere, a config asks for code, code lies where a loader would take it, or
            something that is read is no regular file.
    """
    for name, value in index.items():
        if not name.startswith("_"):
            _check_component(path, name, value, libraries)
    _check_keys(path / "model_index.json", index)
    # diffusers before 0.38 takes it for the code of the pipeline when none is named
    for file in path.iterdir():
        if file.name.lower() == "none.py":
            raise _has_code(file)
    _check_configs(path)
    for name in components(index) if parts is None else parts:
        if (path / name).is_dir():
            _check_part(path / name)


def _any_part(path: Path, names: str) -> bool:
    return any((path / name).is_dir() for name in names.split(" or "))


def _check_component(path: Path, name: str, value: Any, libraries: tuple[str, ...]) -> None:
    if value is None or isinstance(value, bool | int | float):
        return  # an option of the pipeline
    if isinstance(value, list) and len(value) == 2 and name.isidentifier():
        library, cls = value
        if library is None:
            return
        named = isinstance(library, str) and (library in libraries or (name, library) == _CHECKER)
        named |= isinstance(library, str) and isinstance(cls, str) and (name, library, cls) in _PIPELINE_PARTS
        if named and isinstance(cls, str) and cls.isidentifier() and not _SEARCHES.match(cls):
            return
    raise InputError(
        f"{path / 'model_index.json'} takes its part {printable(name, 40)} from {printable(value, 80)}: only classes "
        f"of {' and '.join(LIBRARIES)} are loaded, since anything else could run code; get the model without code of "
        "its own, or load it in Python and pass the pipe"
    )


def _check_part(folder: Path) -> None:
    for file in folder.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            raise InputError(f"{printable(file)} is no regular file, and may never end: get the folder again")
        # a component of this library is taken from a file of the library's name, where there is one
        if file.suffix.lower() in _CODE_SUFFIXES:
            raise _has_code(file)
        if file.name == "adapter_config.json":
            raise InputError(
                f"{file} makes this a LoRA for a model that it names, and nothing but this folder is loaded: give the "
                "model that it was made for, or load both in Python and pass the pipe"
            )
    _check_configs(folder)


def _check_configs(folder: Path) -> None:
    for file in sorted(folder.glob("*config.json")):
        _check_keys(file, read_object(file))


def _check_keys(file: Path, document: Any) -> None:
    for key, value in _entries(document):
        asks = key.lower() in _CODE_KEYS and value not in (None, False)
        # the name of a repository makes transformers fetch code from there
        asks |= key.endswith(("_implementation", "_implementation_internal")) and not _is_name(value)
        asks |= key == "_class_name" and not isinstance(value, str | None) and file.name != "model_index.json"
        if asks:
            raise InputError(
                f"{file} asks for code by {printable(key, 40)}: {printable(value, 80)}, and none is run from a model's "
                "folder: get the model without code of its own, or load it in Python and pass the pipe"
            )


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key at any depth, with its value."""
    if isinstance(document, dict):
        yield from document.items()
    for value in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from _entries(value)


def _is_name(value: Any) -> bool:
    """Whether it is nothing, an identifier or a dict of these: nothing that could be a path or a repository."""
    if isinstance(value, dict):
        return all(_is_name(part) for part in value.values())
    return value is None or (isinstance(value, str) and value.isidentifier())


def _has_code(file: Path) -> InputError:
    return InputError(
        f"{printable(file)} is code, and lies where a loader may run it: remove it if you do not need it, or load the "
        "model in Python and pass the pipe"
    )
