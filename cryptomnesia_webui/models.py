"""The model that the web UI is about to sample with, as a denoiser."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from cryptomnesia.adapters import factory_for, to_denoiser
from cryptomnesia.adapters.a1111 import CompVisDenoiser
from cryptomnesia.adapters.forge import ForgeDenoiser
from cryptomnesia.adapters.webui import FACTOR, WebUIDenoiser
from cryptomnesia.denoiser import Denoiser
from cryptomnesia.errors import NotApplicable

CHANNELS = 4  # of latents, where a model does not tell


def is_pipeline(model: Any) -> bool:
    """Returns whether a model is a diffusers pipeline, as in SD.Next, and not one in a form of the web UI's own."""
    return not hasattr(model, "apply_model") and not hasattr(model, "forge_objects") and hasattr(model, "scheduler")


def program() -> str:
    """Returns the name of the program that this runs in, with its version where it tells."""
    model = ui("shared").sd_model
    if is_pipeline(model):
        return "SD.Next"
    tag = _version()
    name = "Stable Diffusion WebUI Forge" if hasattr(model, "forge_objects") else "stable-diffusion-webui"
    return f"{name} {tag}" if tag else name


def _version() -> str | None:
    try:
        tag = ui("processing").program_version()
    except (AttributeError, ImportError, OSError, TypeError):
        return None
    return str(tag) if tag and tag != "<none>" else None


def ui(name: str) -> Any:
    """Returns one of the web UI's modules."""
    return importlib.import_module(f"modules.{name}")


def sampled_by(p: Any) -> WebUIDenoiser:
    """Returns the model of a batch that is about to be sampled. Raises NotApplicable for unknown backends."""
    return _denoiser(p.sd_model, tuple(p.rng.shape), p.width, p.height, p)


def loaded(height: int, width: int) -> Denoiser:
    """Returns the loaded model, for images of that size in pixels, without any LoRA of a prompt.

    Raises:
        NotApplicable: No model is loaded, or its backend is not known.
        InputError: The pipeline is not supported.
    """
    model = ui("shared").sd_model
    if model is None:
        raise NotApplicable("no model is loaded: choose a checkpoint first")
    if is_pipeline(model):
        return to_denoiser(model)
    channels = getattr(getattr(getattr(model, "forge_objects", None), "vae", None), "latent_channels", None)
    channels = channels or getattr(model, "latent_channels", None) or CHANNELS
    return _denoiser(model, (int(channels), height // FACTOR, width // FACTOR), width, height, None)


def pipeline_denoiser(pipe: Any) -> Denoiser:
    """Returns SD.Next's model. Raises NotApplicable for what is no pipeline, or one that is not supported."""
    if not is_pipeline(pipe) or factory_for(type(pipe)) is None:
        raise NotApplicable(f"{type(pipe).__name__} is not known here: there is no check for it")
    return to_denoiser(pipe)


def _denoiser(model: Any, shape: Sequence[int], width: int, height: int, p: Any) -> WebUIDenoiser:
    prompts = _as_prompts(width, height)
    if hasattr(model, "forge_objects"):
        try:
            importlib.import_module("backend.sampling.sampling_function")
        except ImportError as error:
            raise NotApplicable(
                "this backend is not known here: Forge from version 2 on is, Forge classic and reForge are not"
            ) from error
        return ForgeDenoiser(model, shape, as_prompts=prompts, settings=_settings(p))
    if not hasattr(model, "apply_model"):
        raise NotApplicable(f"{type(model).__name__} is not known here: there is no check for it")
    devices = ui("devices")
    return CompVisDenoiser(
        model,
        shape,
        as_prompts=prompts,
        settings=_settings(p),
        image_conditioning=None if p is None else p.txt2img_image_conditioning,
        within=devices.without_autocast if devices.unet_needs_upcast else devices.autocast,
        device=devices.device,
        dtype=devices.dtype_unet,
    )


def _as_prompts(width: int, height: int) -> Callable[[list[str], bool], Sequence[str]]:
    conditioning = ui("prompt_parser").SdConditioning
    return lambda texts, negative: conditioning(texts, is_negative_prompt=negative, width=width, height=height)


def _settings(p: Any) -> list[str]:
    """What else the web UI makes the model answer by; nothing where all is as it comes."""
    shared, found = ui("shared"), []
    skip = getattr(p, "clip_skip", None) or getattr(shared.opts, "CLIP_stop_at_last_layers", 1)
    if int(skip) > 1:
        found.append(f"clip layer -{int(skip)}")
    merged = getattr(shared.opts, "token_merging_ratio", 0) if p is None else p.get_token_merging_ratio()
    if merged:
        found.append(f"token merging {float(merged):g}")
    if getattr(p, "tiling", None) or (p is None and getattr(shared.opts, "tiling", False)):
        found.append("tiling")
    for network in getattr(shared, "loaded_hypernetworks", None) or ():
        found.append(f"hypernetwork {getattr(network, 'name', '')} {getattr(network, 'multiplier', 1.0)}")
    with suppress(ImportError):
        unet = getattr(ui("sd_unet"), "current_unet", None)
        if unet is not None:
            found.append(f"unet {type(unet).__name__} {getattr(unet, 'option', '')}")
    return found
