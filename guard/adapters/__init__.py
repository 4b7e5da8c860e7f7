"""Hosts' models -> Denoiser. Nothing else in the library knows a host; diffusers is never imported here."""

from collections.abc import Callable
from typing import Any

from ..denoiser import Denoiser
from ..errors import InputError
from ..reference import Reference
from .auraflow import AuraFlowDenoiser
from .chroma import ChromaDenoiser
from .cogview4 import CogView4Denoiser
from .flux import FluxControlNetDenoiser, FluxDenoiser
from .flux_2 import Flux2Denoiser, Flux2KleinDenoiser
from .hidream import HiDreamDenoiser
from .hunyuan_image import HunyuanImageDenoiser
from .kolors import KolorsDenoiser, KolorsPAGDenoiser
from .lumina import Lumina2Denoiser
from .perturbed import (
    PixArtPAGDenoiser,
    StableDiffusion3PAGDenoiser,
    StableDiffusionPAGDenoiser,
    StableDiffusionXLPAGDenoiser,
)
from .pixart import PixArtDenoiser
from .qwen_image import QwenImageDenoiser
from .sana import SanaDenoiser, SanaSprintDenoiser
from .stable_diffusion import LatentConsistencyDenoiser, StableDiffusionDenoiser, StableDiffusionXLDenoiser
from .stable_diffusion_3 import StableDiffusion3Denoiser
from .z_image import ZImageDenoiser

Factory = Callable[[Any], Denoiser]
_FACTORIES: dict[str, Factory] = {}


def register(name: str, factory: Factory, *, replace: bool = False) -> None:
    """Makes `to_denoiser` understand a class.

    Args:
        name: Name of the pipeline's class, or of one of its bases.
        factory: factory(pipe) -> Denoiser.
        replace: Allow a name that is already taken.

    Raises:
        InputError: The name is empty or taken, or the factory cannot be called; the registry stays as it was.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"a pipeline is registered by the name of its class, not {name!r}")
    if not callable(factory):
        raise InputError(f"the factory for {name} must be callable with the pipeline, not {factory!r}")
    if name in _FACTORIES and not replace:
        raise InputError(f"{name} is registered already: pass replace=True to put another factory in its place")
    _FACTORIES[name] = factory


def supported() -> tuple[str, ...]:
    """Returns the names of the pipeline classes that `to_denoiser` understands, sorted."""
    return tuple(sorted(_FACTORIES))


def factory_for(cls: type) -> Factory | None:
    """Returns the factory of the nearest registered class in the inheritance order, if any."""
    # by name: the pipeline's package need not be imported to know its classes
    return next((_FACTORIES[base.__name__] for base in cls.__mro__ if base.__name__ in _FACTORIES), None)


def to_denoiser(pipe_or_denoiser: Any, reference: Reference | None = None) -> Denoiser:
    """Returns the Denoiser of a text-to-image pipeline; a Denoiser is passed through.

    Args:
        pipe_or_denoiser: A pipeline, or a Denoiser.
        reference: What prompts are compared with, by default what the pipeline tells; see `Reference`. A distilled
            network in a pipeline that does not say so, such as SDXL Turbo or Lightning, needs "empty prompt".

    Raises:
        InputError: The object is neither, and the message lists what is supported and how to wrap anything else; or the
            model cannot have that reference.
    """
    denoiser = pipe_or_denoiser if isinstance(pipe_or_denoiser, Denoiser) else _of_pipeline(pipe_or_denoiser)
    if reference is not None:
        denoiser.reference = reference
    return denoiser


def _of_pipeline(pipe_or_denoiser: Any) -> Denoiser:
    factory = factory_for(type(pipe_or_denoiser))
    if factory is None:
        raise InputError(
            f"{type(pipe_or_denoiser).__name__} is not supported: give a Denoiser or one of {', '.join(supported())} "
            "(inpainting does not start from pure noise); wrap anything else as "
            "CallableDenoiser(fn, alphas_cumprod, prediction_type, empty=..., latent_shape=...)"
        )
    return factory(pipe_or_denoiser)


register("StableDiffusionPipeline", StableDiffusionDenoiser)
register("StableDiffusionImg2ImgPipeline", StableDiffusionDenoiser)
register("StableDiffusionXLPipeline", StableDiffusionXLDenoiser)
register("StableDiffusionXLImg2ImgPipeline", StableDiffusionXLDenoiser)
register("LatentConsistencyModelPipeline", LatentConsistencyDenoiser)
register("StableDiffusion3Pipeline", StableDiffusion3Denoiser)
register("StableDiffusion3Img2ImgPipeline", StableDiffusion3Denoiser)
register("FluxPipeline", FluxDenoiser)
register("FluxControlNetPipeline", FluxControlNetDenoiser)
register("Flux2Pipeline", Flux2Denoiser)
register("Flux2KleinPipeline", Flux2KleinDenoiser)
register("QwenImagePipeline", QwenImageDenoiser)
register("ChromaPipeline", ChromaDenoiser)
register("HunyuanImagePipeline", HunyuanImageDenoiser)
register("PixArtAlphaPipeline", PixArtDenoiser)
register("PixArtSigmaPipeline", PixArtDenoiser)
register("ZImagePipeline", ZImageDenoiser)
register("Lumina2Pipeline", Lumina2Denoiser)
register("SanaPipeline", SanaDenoiser)
register("SanaSprintPipeline", SanaSprintDenoiser)
register("AuraFlowPipeline", AuraFlowDenoiser)
register("CogView4Pipeline", CogView4Denoiser)
register("HiDreamImagePipeline", HiDreamDenoiser)
register("StableDiffusionPAGPipeline", StableDiffusionPAGDenoiser)
register("StableDiffusionXLPAGPipeline", StableDiffusionXLPAGDenoiser)
register("StableDiffusion3PAGPipeline", StableDiffusion3PAGDenoiser)
register("PixArtSigmaPAGPipeline", PixArtPAGDenoiser)
register("KolorsPipeline", KolorsDenoiser)
register("KolorsPAGPipeline", KolorsPAGDenoiser)
# what these are told of an image a check leaves out
register("StableDiffusionControlNetPipeline", StableDiffusionDenoiser)
register("StableDiffusionXLControlNetPipeline", StableDiffusionXLDenoiser)
register("StableDiffusionXLControlNetUnionPipeline", StableDiffusionXLDenoiser)
register("StableDiffusion3ControlNetPipeline", StableDiffusion3Denoiser)
register("StableDiffusionControlNetPAGPipeline", StableDiffusionPAGDenoiser)
register("StableDiffusionXLControlNetPAGPipeline", StableDiffusionXLPAGDenoiser)
register("StableDiffusionAdapterPipeline", StableDiffusionDenoiser)
register("StableDiffusionXLAdapterPipeline", StableDiffusionXLDenoiser)
