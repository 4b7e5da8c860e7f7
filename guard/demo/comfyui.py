"""The built-in model for ComfyUI: MODEL, CLIP and VAE of ComfyUI's own classes, made without diffusers."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, MissingPackage
from . import CHECKPOINTS, WEIGHTS

CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "text_encoder": "text_encoder/config.json",
}
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"
TOKENIZER_FILES = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json")


def load_demo_comfyui(
    checkpoint: Literal["final", "early"] = "final", embedding_directory: str | list[str] | None = None
) -> tuple[Any, Any, Any]:
    """Loads the built-in model, 64x64 pixels, 4x16x16 latents, noise prediction, as CheckpointLoaderSimple does.

    The UNet and the VAE compute in float32 unless ComfyUI's options say otherwise.

    Args:
        checkpoint: "final", or "early": the same training before it had memorized anything.
        embedding_directory: Where `embedding:name` in a prompt is looked up; None takes it for text.

    Returns:
        ModelPatcher, comfy.sd.CLIP and comfy.sd.VAE, on ComfyUI's offload devices.

    Raises:
        InputError: Unknown checkpoint, or a file of the model that is missing or damaged.
        MissingPackage: This does not run inside ComfyUI.
    """
    if checkpoint not in CHECKPOINTS:
        raise InputError(
            f"unknown checkpoint {checkpoint!r} of the built-in model: use one of {', '.join(CHECKPOINTS)}"
        )
    model, clip, vae = load_parts(checkpoint, embedding_directory)
    # how ComfyUI makes them anew, e.g. for another GPU
    for index, patcher in enumerate((model, clip.patcher, vae.patcher)):
        patcher.cached_patcher_init = (load_patchers, (checkpoint,), index)
    return model, clip, vae


def load_patchers(checkpoint: str, disable_dynamic: bool = False) -> tuple[Any, Any, Any]:
    """Returns fresh ModelPatchers of UNet, text encoder and autoencoder."""
    model, clip, vae = load_parts(checkpoint, None, disable_dynamic)
    return model, clip.patcher, vae.patcher


def load_parts(checkpoint: str, embeddings: Any, disable_dynamic: bool = False) -> tuple[Any, Any, Any]:
    """Returns MODEL, CLIP and VAE; every file is read and checked before anything is built."""
    trained = "" if checkpoint == "final" else f"{checkpoint}/"
    configs = {part: read_json(WEIGHTS / name) for part, name in CONFIGS.items()}
    for path in TOKENIZER_FILES:
        read_json(WEIGHTS / path)  # transformers' own errors are pages long
    weights = [read_tensors(trained + UNET_FILE), read_tensors(trained + TEXT_FILE), read_tensors(VAE_FILE)]
    require_comfyui()

    from . import comfyui_networks as networks

    return (
        networks.unet(weights[0], configs, disable_dynamic),
        networks.text_encoder(weights[1], configs["text_encoder"], WEIGHTS / "tokenizer", embeddings, disable_dynamic),
        networks.vae(weights[2], configs["vae"]),
    )


def require_comfyui() -> None:
    """Raises MissingPackage where ComfyUI's modules cannot be imported."""
    try:
        import comfy.sd  # noqa: F401
    except ImportError as error:
        raise MissingPackage("load_demo_comfyui needs ComfyUI: call it from a node of a running ComfyUI") from error


def read_tensors(name: str) -> dict[str, Any]:
    """Returns the tensors of a weights file whose digest is the one in SHA256SUMS."""
    from safetensors.torch import load

    data = read_file(WEIGHTS / name)
    if hashlib.sha256(data).hexdigest() != digests().get(name):
        raise InputError(f"the built-in model's file {WEIGHTS / name} is damaged: install the package again")
    return load(data)


def digests() -> dict[str, str]:
    """Returns SHA-256 digests by path in the weights' folder."""
    lines = read_file(WEIGHTS / "SHA256SUMS").decode(errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def read_json(path: Path) -> dict[str, Any]:
    """Returns what a settings file of the model holds. Raises InputError for a damaged one."""
    try:
        return json.loads(read_file(path))
    except ValueError as error:
        raise InputError(f"the built-in model's file {path} is damaged: install the package again") from error


def read_file(path: Path) -> bytes:
    """Returns the bytes of one of the model's files. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the built-in model's file {path} ({error.strerror}): install the package again"
        ) from error
