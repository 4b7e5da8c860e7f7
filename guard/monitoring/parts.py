"""From what a training script holds, wrapped by whatever trains it, to a Denoiser."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapters import to_denoiser
from ..adapters.quiet import quietly
from ..condition import Condition
from ..denoiser import Denoiser, NoiseLevel, Prediction
from ..errors import InputError, require
from ..printable import first_line

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine")
_SHARDED = ("FullyShardedDataParallel",)


def unwrapped(module: Any) -> Any:
    """Returns the network behind torch.compile, PEFT's model and what accelerate puts around one, adapters included.

    Raises InputError where its weights are spread over several processes.
    """
    while True:
        name = type(module).__name__
        if name in _SHARDED or any(hasattr(p, "ds_id") for p in getattr(module, "parameters", tuple)()):
            raise InputError(
                "the network's weights are spread over several processes (FSDP or ZeRO-3), and cannot be asked from "
                "one of them: save the epoch, and check it with `cryptomnesia lora` or `check`"
            )
        if name in _WRAPPERS:
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif hasattr(module, "get_base_model"):
            module = module.get_base_model()
        else:
            return module


def pipeline_of_parts(*, unet: Any, text_encoder: Any, tokenizer: Any, scheduler: Any, vae: Any = None) -> Any:
    """Returns a pipeline around the parts of Stable Diffusion 1.x, 2.x or XL.

    Nothing of the parts is changed; what trains is what is asked.

    Args:
        unet: The network, bare or wrapped.
        text_encoder, tokenizer: One, or for XL a list of two.
        scheduler: The one that noise is added by; its configuration alone is used.
        vae: The autoencoder, which reads images that are no latents yet.

    Raises:
        InputError: A part is missing, or there are more than two text encoders.
        MissingPackage: diffusers is not installed.
    """
    given = {"unet": unet, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    missing = [name for name, part in given.items() if part is None]
    if missing:
        raise InputError(f"give a pipeline, or its parts: {' and '.join(missing)} is missing")
    encoders, tokenizers = _listed(text_encoder), _listed(tokenizer)
    if len(encoders) != len(tokenizers) or not 1 <= len(encoders) <= 2:
        raise InputError(
            f"{len(encoders)} text encoders and {len(tokenizers)} tokenizers make no Stable Diffusion: give one of "
            "each, two of each for XL, or a pipeline for other families"
        )
    network, encoders = unwrapped(unet), [unwrapped(encoder) for encoder in encoders]
    diffusers = require("diffusers", "diffusers")
    config = getattr(network, "_internal_dict", None)  # which pipelines correct in old models
    parts: dict[str, Any] = {
        "vae": None if vae is None else unwrapped(vae),
        "unet": network,
        "scheduler": type(scheduler).from_config(scheduler.config),
        "text_encoder": encoders[0],
        "tokenizer": tokenizers[0],
    }
    try:
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of settings that samplers have otherwise than trainings
            if len(encoders) == 2:
                second = {"text_encoder_2": encoders[1], "tokenizer_2": tokenizers[1]}
                pipe = diffusers.StableDiffusionXLPipeline(**parts, **second, add_watermarker=False)
            else:
                extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
                pipe = diffusers.StableDiffusionPipeline(**parts, **extra)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"these parts make no pipeline: {first_line(error)}: give a pipeline") from error
    finally:
        if config is not None:
            network._internal_dict = config
    return pipe


def modules_of(denoiser: Denoiser) -> list[torch.nn.Module]:
    """Returns the modules that a denoiser asks: network, text encoders, autoencoder, a CallableDenoiser's function."""
    vae = getattr(getattr(denoiser, "pipe", None), "vae", None)
    named = [*(getattr(denoiser, name, None) for name in ("network", "fn")), vae]
    found = [*named, *getattr(denoiser, "text_encoders", [])]
    return [module for module in found if isinstance(module, torch.nn.Module)]


def text_is_trained(denoiser: Denoiser) -> bool:
    """Returns whether what reads captions is being trained, so that they are to be read again each time."""
    encoders = [e for e in getattr(denoiser, "text_encoders", []) if isinstance(e, torch.nn.Module)]
    return any(p.requires_grad for encoder in encoders for p in encoder.parameters())


def fresh_denoiser(pipe_or_denoiser: Any) -> Denoiser:
    """Returns a denoiser that remembers nothing of earlier weights: optimizers change them unseen."""
    return to_denoiser(pipe_or_denoiser)


class TextKept(Denoiser):
    """A denoiser whose empty prompt was read before, so that its text encoders may be anywhere by now.

    Args:
        denoiser: The denoiser, which answers.
        empty: Its empty prompt, one row.
    """

    def __init__(self, denoiser: Denoiser, empty: Condition):
        self._denoiser, self._empty = denoiser, empty
        self.prediction_type, self.levels, self.family = denoiser.prediction_type, denoiser.levels, denoiser.family
        self.reference, self.scales = denoiser.reference, denoiser.scales
        self.device, self.dtype = denoiser.device, denoiser.dtype

    def predict(self, x: Tensor, level: NoiseLevel, condition: Condition | Tensor, *, grad: bool = False) -> Prediction:
        """Splits noisy latents, as the denoiser itself."""
        return self._denoiser.predict(x, level, condition, grad=grad)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Returns the network's own output, as the denoiser itself."""
        return self._denoiser.output(x, time, condition)

    @property
    def empty(self) -> Condition:
        """The empty prompt as it was read."""
        return self._empty

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns the shape of a latent, as the denoiser itself."""
        return self._denoiser.latent_shape(height, width)


def _listed(part: Any) -> list[Any]:
    return list(part) if isinstance(part, Sequence) and not isinstance(part, str) else [part]
