"""The weights of a model's folder: complete safetensors files of one variant, and never pickles."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import InputError
from ..printable import printable
from ..tensors import open_tensors
from .model_folder import read_object

PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}
_WEIGHTLESS = (
    "scheduler",
    "tokenizer",
    "feature_extractor",
    "safety_checker",
    "image_processor",
    "guider",
    "ocr_guider",
)
_UNUSED = ("safety_checker", "feature_extractor")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
PLAIN = ""  # the variant of files without a tag
_PREFERRED = ("fp16", "bf16", "fp32", "non_ema")


def check_safetensors(path: Path) -> None:
    """Reads the header, which also tells whether the file is complete.

    Raises:
        InputError: The file is empty, cut off, a Git LFS pointer, no safetensors file or no regular file.
    """
    with open_tensors(path, "weights file", "get the file again") as weights:
        if not weights.keys():
            raise InputError(f"{path} holds no weights: get the file again")


def check_weights(path: Path, names: Iterable[str]) -> str | None:
    """Makes sure that every component is there as safetensors; returns the variant in the files' names, if any.

    Args:
        path: The folder.
        names: The names of the model's parts, as model_index.json gives them.

    Raises:
        InputError: Naming what is missing or broken.
    """
    parts = [name for name in names if not name.startswith(_UNUSED)]
    missing = [name + "/" for name in parts if not (path / name).is_dir()]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}, which model_index.json names: get the folder again")
    for name in (n for n in parts if n.startswith("tokenizer")):
        # without these transformers makes one that knows no words
        if not any((path / name / file).is_file() for file in _VOCABULARIES):
            raise InputError(f"{path / name} lacks its vocabulary ({' or '.join(_VOCABULARIES)}): get the folder again")
    weighty = {name: by_variant(path / name) for name in parts if not name.startswith(_WEIGHTLESS)}
    variant = _shared(path, weighty)
    for name, files in weighty.items():
        used = PLAIN if variant is None or variant not in files else variant
        for file in files[used]:
            check_safetensors(file)
        _check_shards(path / name, used)
    return variant


def require_no_pickles(folder: Path) -> None:
    """Raises InputError if a part has its weights only as pickles, where a loader would take these."""
    files = [file for file in folder.iterdir() if file.suffix.lower() != ".json"] if folder.is_dir() else []
    suffixes = {file.suffix.lower() for file in files}
    if suffixes & PICKLES and ".safetensors" not in suffixes:
        raise InputError(
            f"{folder} has its weights only as pickles, which can run code when they are loaded: "
            "get the .safetensors version, or convert them in a place you trust"
        )


def checked(pipe: Any, path: Path) -> Any:
    """Returns the pipe. Raises InputError unless each of its networks got its weights."""
    import torch

    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and any(p.is_meta for p in part.parameters()):
            raise InputError(f"{path} lacks some weights of its {name}: get it again")
    return pipe


def by_variant(folder: Path) -> dict[str, list[Path]]:
    """The weights of a part by what their names carry: model.safetensors, model.fp16-00001-of-00002.safetensors."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tag = file.name.split(".")[1].split("-")[0] if file.name.count(".") > 1 else PLAIN
        found.setdefault(tag, []).append(file)
    if not found:
        require_no_pickles(folder)
        raise InputError(f"{folder} lacks its weights (*.safetensors): get the folder again")
    return found


def _shared(path: Path, parts: dict[str, dict[str, list[Path]]]) -> str | None:
    """The variant in which all parts are there that are not there without one; None if all are."""
    tagged = {name: set(files) for name, files in parts.items() if PLAIN not in files}
    if not tagged:
        return None
    common = set.intersection(*tagged.values())
    if not common:
        kinds = "; ".join(f"{name} in {', '.join(sorted(tags))}" for name, tags in tagged.items())
        raise InputError(f"{path} has no variant in which all parts are there ({kinds}): get the folder again")
    return min(common, key=lambda tag: (_PREFERRED.index(tag) if tag in _PREFERRED else len(_PREFERRED), tag))


def _check_shards(folder: Path, used: str) -> None:
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise InputError(f"{index} cannot be read (it has no weight_map of names): get the folder again")
        names = sorted(set(shards.values()))
        for name in names:
            # nothing outside of the folder is read because a file says so
            if not name or name in (".", "..") or {PurePosixPath(name).name, PureWindowsPath(name).name} != {name}:
                raise InputError(f"{index} names {printable(name, 80)}, which lies elsewhere: get the folder again")
        missing = [name for name in names if not (folder / name).is_file()]
        own = index.name.split(".index")[1].removesuffix(".json").strip(".") == used
        if missing and own:
            raise InputError(f"{folder} lacks {', '.join(missing)}, which {index.name} names: get the folder again")
