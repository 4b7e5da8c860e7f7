"""Loads a pipeline from disk: never from the network, never from a pickle."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError, require
from . import factory_for, supported

PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}
_WEIGHTLESS = ("scheduler", "tokenizer", "feature_extractor", "safety_checker", "image_processor")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_LFS_POINTER = b"version https://git-lfs"
# what diffusers, transformers and torch raise for files that do not fit together
LOAD_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)


def load_pipeline(model: str) -> Any:
    """A diffusers pipeline.

    Args:
        model: "demo" for the built-in model, a diffusers folder (one with model_index.json), of torch weights or of
            ONNX files (see `onnx_loading`), or a .safetensors file that holds a whole model.

    Raises:
        InputError: It cannot be loaded; one line says what, why and the mend.
        MissingPackage: diffusers is not installed.
    """
    if model == "demo":
        from ..demo import load_demo

        return load_demo()
    path = Path(model).expanduser()
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run code when it is loaded: convert it to .safetensors, or use such a copy"
        )
    if not path.exists():
        raise InputError(
            f"{path} does not exist: give 'demo', a diffusers folder or a .safetensors file; nothing is downloaded here"
        )
    if path.is_dir():
        return _load_folder(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is not a .safetensors file: give 'demo', a diffusers folder or a .safetensors file")
    return _load_file(path)


def check_safetensors(path: Path) -> None:
    """Reads the header, which also tells whether the file is complete.

    Raises:
        InputError: The file is empty, cut off, a Git LFS pointer or no safetensors file.
    """
    safetensors = require("safetensors", "diffusers")

    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise InputError(f"{path} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
        with safetensors.safe_open(path, framework="pt") as weights:
            if not weights.keys():
                raise InputError(f"{path} holds no weights: get the file again")
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no complete safetensors file ({line(error)}): get the file again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({line(error)}): check the file and its permissions") from error


def _load_folder(path: Path) -> Any:
    """A folder in diffusers' layout."""
    from .onnx_loading import holds_onnx, load_onnx

    index = read_index(path)
    if holds_onnx(path):
        return load_onnx(path)
    cls = _pipeline_class(path, index)
    variant = _check_weights(path, index)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if variant:
        options["variant"] = variant
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    require("accelerate", "diffusers")  # without it diffusers draws missing weights at random, and says so in passing
    try:
        pipe = cls.from_pretrained(str(path), **options)
    except LOAD_ERRORS as error:
        raise InputError(
            f"{path} cannot be loaded ({line(error)}): its weights and configs do not fit together or are incomplete; "
            "get the folder again"
        ) from error
    return _checked(pipe, path)


def read_index(path: Path) -> dict[str, Any]:
    """model_index.json. Raises InputError where there is none, or no readable one."""
    file = path / "model_index.json"
    if not file.is_file():
        lacking = [name for name in ("unet/ or transformer/", "vae/", "scheduler/") if not _any_part(path, name)]
        raise InputError(
            f"{path} is no diffusers folder: it lacks {', '.join(['model_index.json', *lacking])}; "
            "give the folder that pipe.save_pretrained(...) wrote"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no readable JSON ({line(error)}): get the folder again") from error
    if not isinstance(index, dict):
        raise InputError(f"{file} holds no JSON object: get the folder again")
    return index


def _any_part(path: Path, names: str) -> bool:
    return any((path / name).is_dir() for name in names.split(" or "))


def _pipeline_class(path: Path, index: dict[str, Any]) -> Any:
    """The class that the index names, if it is one that the adapters know."""
    name = index.get("_class_name")
    cls = getattr(require("diffusers", "diffusers"), name, None) if isinstance(name, str) else None
    # never a class from the folder's own code
    if not isinstance(cls, type) or factory_for(cls) is None:
        raise InputError(f"{path} holds a {name}, which is not supported: use one of {', '.join(supported())}")
    return cls


def _check_weights(path: Path, index: dict[str, Any]) -> str | None:
    """Every component is there as safetensors, complete; returns the variant that the files' names carry, if any.

    Raises:
        InputError: Naming what is missing or broken.
    """
    parts = [n for n, v in index.items() if not n.startswith("_") and isinstance(v, list) and v and v[0] is not None]
    parts = [n for n in parts if not n.startswith(("safety_checker", "feature_extractor"))]
    missing = [name + "/" for name in parts if not (path / name).is_dir()]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}, which model_index.json names: get the folder again")
    for name in (n for n in parts if n.startswith("tokenizer")):
        # without these transformers makes one that knows no words
        if not any((path / name / file).is_file() for file in _VOCABULARIES):
            raise InputError(f"{path / name} lacks its vocabulary ({' or '.join(_VOCABULARIES)}): get the folder again")
    variants = set()
    for name in (n for n in parts if not n.startswith(_WEIGHTLESS)):
        files = sorted((path / name).glob("*.safetensors"))
        if not files:
            if any(f.suffix in PICKLES for f in (path / name).iterdir()):
                raise InputError(
                    f"{path / name} has its weights only as pickles, which can run code when they are loaded: "
                    "get the .safetensors version, or convert them in a place you trust"
                )
            raise InputError(f"{path / name} lacks its weights (*.safetensors): get the folder again")
        for file in files:
            check_safetensors(file)
        _check_shards(path / name)
        # model.safetensors, model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
        tags = {file.name.split(".")[1].split("-")[0] if file.name.count(".") > 1 else "" for file in files}
        if "" not in tags:
            variants.add(min(tags))
    return min(variants) if variants else None


def _check_shards(folder: Path) -> None:
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} cannot be read ({line(error)}): get the folder again") from error
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}, which {index.name} names: get the folder again")


def _load_file(path: Path) -> Any:
    """A whole model in one file, as Stability AI and Civitai publish them."""
    check_safetensors(path)
    shapes = _shapes(path)
    if any("lora_" in name or ".lora" in name for name in shapes):
        raise InputError(
            f"{path} is a LoRA, not a whole model: give the model that it was made for, or load both in Python "
            "(pipe.load_lora_weights) and pass the pipe"
        )
    config = _config_folder(path, shapes)
    index = read_index(config)
    cls = _pipeline_class(path, index)
    options = {"safety_checker": None} if "safety_checker" in index else {}
    utils = require("diffusers.loaders.single_file_utils", "diffusers")
    try:
        pipe = cls.from_single_file(str(path), config=str(config), local_files_only=True, **options)
    except (*LOAD_ERRORS, utils.SingleFileComponentError) as error:
        raise InputError(
            f"{path} cannot be loaded as a {cls.__name__} ({line(error)}): it may hold a part of a model only; "
            "give a diffusers folder instead"
        ) from error
    return _checked(pipe, path)


def _shapes(path: Path) -> dict[str, Any]:
    """Every tensor of the file without its values: enough to tell what kind of model it is."""
    import torch

    with require("safetensors", "diffusers").safe_open(path, framework="pt") as weights:
        names = weights.keys()
        return {name: torch.empty(weights.get_slice(name).get_shape(), device="meta") for name in names}


def _config_folder(path: Path, shapes: dict[str, Any]) -> Path:
    """The configs that belong to a single file: a folder of its name beside it, or those in the local hub cache.

    from_single_file would turn to the network when they are not cached, even if told not to; so they are found here.
    """
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    utils = require("diffusers.loaders.single_file_utils", "diffusers")
    hub = require("huggingface_hub", "diffusers")
    try:
        repository = utils.fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]
    except LOAD_ERRORS as error:
        raise InputError(f"{path} is of no known kind of model ({line(error)}): give a diffusers folder") from error
    cause = None
    try:
        cached = Path(hub.snapshot_download(repository, local_files_only=True))
        if (cached / "model_index.json").is_file():
            return cached
    except (OSError, ValueError) as error:
        cause = error
    raise InputError(
        f"{path} has weights but no configs, which were looked for in {beside}/ and among the cached files of "
        f"{repository}: put a folder with that model's configs (model_index.json, tokenizer, ...) at {beside}/"
    ) from cause


def _checked(pipe: Any, path: Path) -> Any:
    """The pipe, if each of its networks got its weights."""
    import torch

    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and any(p.is_meta for p in part.parameters()):
            raise InputError(f"{path} lacks some weights of its {name}: get it again")
    return pipe


def line(error: BaseException) -> str:
    """The first line of an error, shortened, for a message of one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 160 else lines[0][:157] + "..."
