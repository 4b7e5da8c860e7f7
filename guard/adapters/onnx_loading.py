"""Loads a folder of ONNX files as a pipeline: what optimum and diffusers' own script export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, require
from ..printable import first_line, printable
from .model_folder import LIBRARIES, LOAD_ERRORS, read_index, read_object, require_no_code
from .onnx import OnnxAutoencoder, OnnxTextEncoder, OnnxUNet
from .onnx_session import Session

_MODEL = "model.onnx"
_OPTIMUM = "optimum.onnxruntime.modeling_diffusion"  # what optimum writes; networks are opened here, whatever it says
# by pipeline: its text encoders, each with its tokenizer
_PIPELINES = {
    "StableDiffusionPipeline": {"text_encoder": "tokenizer"},
    "StableDiffusionXLPipeline": {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"},
}
# what diffusers' OnnxStableDiffusionPipeline, whose folders have no configs, takes for granted
_CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {"in_channels": 4, "sample_size": 64, "time_cond_proj_dim": None},
    "vae": {"latent_channels": 4, "block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215},
    "text_encoder": {},
}


def holds_onnx(folder: Path) -> bool:
    """Returns whether a folder's networks are ONNX files, and its UNet nothing that torch could read."""
    return any(folder.glob(f"*/{_MODEL}")) and not any((folder / "unet").glob("*.safetensors"))


def load_onnx(folder: str | Path, *, providers: Sequence[str] | None = None) -> Any:
    """Returns a Stable Diffusion 1.x, 2.x or XL pipeline whose networks run in onnxruntime.

    It is diffusers' own StableDiffusionPipeline or StableDiffusionXLPipeline, to be guarded and sampled with as ever.
    The autoencoder's halves may be missing; what needs them answers NotApplicable then.

    Args:
        folder: A folder with model_index.json, unet/model.onnx, text_encoder/model.onnx, vae_encoder/, vae_decoder/,
            tokenizer/ and scheduler/; XL has text_encoder_2/ and tokenizer_2/, too.
        providers: onnxruntime's execution providers, the preferred one first; by default CUDA, ROCm or DirectML where
            the installed onnxruntime has them, and the CPU.

    Raises:
        InputError: It cannot be loaded; one line says what, why and what to do.
        MissingPackage: onnxruntime or diffusers is not installed.
    """
    folder = Path(folder).expanduser()
    index = read_index(folder)
    name = str(index.get("_class_name")).removeprefix("Onnx").removeprefix("ORT")
    if name not in _PIPELINES:
        raise InputError(
            f"{folder} holds a {printable(name, 80)} as ONNX, which is not supported: use Stable Diffusion "
            "1.x, 2.x or XL, or the model's torch weights"
        )
    encoders = _PIPELINES[name]
    _check_parts(folder, encoders)
    read = ("unet", "vae", "vae_encoder", "vae_decoder", "scheduler", *encoders, *encoders.values())
    require_no_code(folder, index, read, libraries=(*LIBRARIES, _OPTIMUM))
    parts = _networks(folder, encoders, providers)
    diffusers, transformers = require("diffusers", "diffusers"), require("transformers", "diffusers")
    try:
        for tokenizer in encoders.values():
            parts[tokenizer] = _tokenizer(transformers, folder / tokenizer)
        parts["scheduler"] = _scheduler(diffusers, folder / "scheduler")
        pipe = getattr(diffusers, name)(**parts, **_options(name, index))
        pipe.register_to_config(_name_or_path=str(folder))  # as from_pretrained does
        return pipe
    except LOAD_ERRORS as error:
        raise InputError(
            f"{folder} cannot be loaded ({first_line(error)}): its configs do not fit its networks or are incomplete; "
            "get the folder again"
        ) from error


def _check_parts(folder: Path, encoders: dict[str, str]) -> None:
    networks = [f"{part}/{_MODEL}" for part in ("unet", *encoders)]
    missing = [name for name in (*networks, *encoders.values(), "scheduler") if not (folder / name).exists()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}: export the whole model again")


def _networks(folder: Path, encoders: dict[str, str], providers: Sequence[str] | None) -> dict[str, Any]:
    def session(part: str, needs: Sequence[str] = (), may: Sequence[str] = ()) -> Session:
        return Session(folder / part / _MODEL, needs, may, providers=providers)

    configs = _CONFIGS if len(encoders) == 1 else {}
    halves = [session(half) if (folder / half / _MODEL).exists() else None for half in ("vae_encoder", "vae_decoder")]
    parts: dict[str, Any] = {
        "unet": OnnxUNet(_config(folder, "unet", configs), session("unet", OnnxUNet.NEEDS, OnnxUNet.MAY)),
        "vae": OnnxAutoencoder(_config(folder, "vae", configs), *halves),
    }
    for name in encoders:
        asked = session(name, OnnxTextEncoder.NEEDS, OnnxTextEncoder.MAY)
        parts[name] = OnnxTextEncoder(_config(folder, name, configs), asked)
    return parts


def _config(folder: Path, part: str, defaults: dict[str, dict[str, Any]]) -> Any:
    """The part's config.json, wherever the exporter put it, over the defaults."""
    utils = require("diffusers.configuration_utils", "diffusers")
    files = [folder / name / "config.json" for name in (part, f"{part}_decoder", f"{part}_encoder")]
    file = next((file for file in files if file.is_file()), None)
    if file is None and part not in defaults:
        raise InputError(f"{folder} lacks {part}/config.json: copy it from the model that was exported")
    stored = {} if file is None else read_object(file)
    # an exported autoencoder computes in what it was exported in
    return utils.FrozenDict({**defaults.get(part, {}), **stored, "force_upcast": False})


def _tokenizer(transformers: Any, folder: Path) -> Any:
    # without these files transformers makes one that knows no words
    for names in (("tokenizer_config.json",), ("tokenizer.json", "vocab.json")):
        if not any((folder / name).is_file() for name in names):
            raise InputError(f"{folder.name}/ lacks {' or '.join(names)}")
    return transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _scheduler(diffusers: Any, folder: Path) -> Any:
    name = read_object(folder / "scheduler_config.json").get("_class_name")
    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    # never a class from the folder's own code
    if not isinstance(cls, type) or not issubclass(cls, diffusers.SchedulerMixin):
        raise InputError(f"diffusers has no scheduler {printable(name, 80)!r}")
    return cls.from_pretrained(folder)


def _options(name: str, index: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline is told besides its parts."""
    if name == "StableDiffusionPipeline":
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {key: index[key] for key in ("force_zeros_for_empty_prompt",) if key in index}
