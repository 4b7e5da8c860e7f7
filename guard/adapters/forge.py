"""A model of Forge as a denoiser: memory, LoRAs and patches are Forge's own.

Forge keeps noisy latents as x0 + sigma noise and hands out clean ones, as ComfyUI does, from which its backend comes.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..denoiser import PredictionType
from ..errors import NotApplicable
from ..levels import Levels
from .contents import Contents
from .webui import AsPrompts, WebUIDenoiser

_PREDICTIONS: dict[str, PredictionType] = {"epsilon": "epsilon", "eps": "epsilon", "v_prediction": "v"}
_BESIDE = {"sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "disable_cfg1_optimization"}
_FAMILIES = {"is_sd1": "stable-diffusion", "is_sd2": "stable-diffusion", "is_sdxl": "stable-diffusion-xl"}


class ForgeDenoiser(WebUIDenoiser):
    """An `sd_model` of Forge: Stable Diffusion 1.x, 2.x and XL.

    Args:
        model: Has `forge_objects` with `unet` and `clip`, and `get_learned_conditioning`.
        shape, as_prompts, settings: As for `WebUIDenoiser`.
    """

    differentiable = False  # Forge's weights are made in inference mode

    def __init__(
        self,
        model: Any,
        shape: Sequence[int],
        *,
        as_prompts: AsPrompts | None = None,
        settings: Iterable[str] = (),
    ):
        self._unet = model.forge_objects.unet
        super().__init__(model, shape, as_prompts=as_prompts, settings=[*settings, *_patches(self._unet)])
        self.device = torch.device(self._unet.load_device)
        self.dtype = self._unet.model.computation_dtype

    @property
    def network(self) -> torch.nn.Module:
        return self._unet.model.diffusion_model

    @property
    def text_encoder(self) -> torch.nn.Module:
        return self.model.forge_objects.clip.cond_stage_model

    def _tokenizers(self) -> Iterator[tuple[Any, torch.nn.Module]]:
        for name, tokenizer in getattr(self.model.forge_objects.clip.tokenizer, "__dict__", {}).items():
            encoder = getattr(self.text_encoder, name, None)
            if isinstance(encoder, torch.nn.Module):
                yield tokenizer, encoder

    @property
    def _predictor(self) -> Any:
        return self._unet.model.predictor

    @property
    def family(self) -> str:  # type: ignore[override]
        return next((name for flag, name in _FAMILIES.items() if getattr(self.model, flag, False)), "unknown")

    @property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        name = self._predictor.prediction_type
        if name not in _PREDICTIONS:
            raise NotApplicable(f"models that predict {name!r} are not known here: there is no score")
        return _PREDICTIONS[name]

    @cached_property
    def levels(self) -> Levels:  # type: ignore[override]
        sigmas = self._predictor.sigmas.detach().double().cpu()
        return Levels(1 / (1 + sigmas.square()))

    def require_guidance(self) -> None:
        """Raises NotApplicable for other models than text-to-image ones on discrete noise levels."""
        if self.family == "unknown" or getattr(self.model, "use_distilled_cfg_scale", False):
            raise NotApplicable(
                f"{type(self.model).__name__} is not known here: Stable Diffusion 1.x, 2.x and XL are, no others"
            )
        _ = self.prediction_type  # raises for what is unknown
        refiner = "Refiner" in type(self.model).__name__
        if getattr(self.model, "is_inpaint", False) or refiner:
            raise NotApplicable(
                "refiners and inpainting models do not start from pure noise: a check says nothing there"
            )

    def settle(self) -> None:
        """Loads the network and merges its LoRAs."""
        x = torch.zeros(1, *self._shape, device=self.device)
        with torch.inference_mode():
            import_module("backend.sampling.sampling_function").sampling_prepare(self._unet, x)

    def _answer(self, x: Tensor, time: Tensor, conditioning: Any) -> Tensor:
        level = self.levels.timestep(time.cpu()).to(x.device)
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (level.alpha, level.sigma))
        x0 = self._clean(x / alpha, level.sigma / level.alpha, conditioning)
        noise = (x - alpha * x0) / sigma
        return noise if self.prediction_type == "epsilon" else alpha * noise - sigma * x0

    def _clean(self, x: Tensor, sigma: Tensor, conditioning: Any) -> Tensor:
        """Forge's clean latents of x in its own scale."""
        sampling = import_module("backend.sampling.sampling_function")
        compiled = import_module("backend.sampling.condition").compile_conditions
        options = self._unet.model_options
        with torch.inference_mode():
            sampling.sampling_prepare(self._unet, x)
            asked = compiled(_on(conditioning, x.device))
            found = sampling.calc_cond_uncond_batch(self._unet.model, asked, None, x, sigma, options)[0]
        with torch.inference_mode(False):
            return found.float().clone()


def _on(conditioning: Any, device: torch.device) -> Any:
    if isinstance(conditioning, Tensor):
        return conditioning.to(device)
    return {name: value.to(device) for name, value in conditioning.items()}


def _patches(unet: Any) -> list[str]:
    """What makes the network answer otherwise than its weights say, each with a digest of all that it holds.

    LoRAs that are merged are in the weights; what only acts on both branches' answers is not among them.
    """
    options = dict(unet.model_options)
    parts = {name: value for name, value in options.items() if name not in _BESIDE and name != "transformer_options"}
    parts |= options.get("transformer_options", {})
    parts |= {f"object {name}": value for name, value in getattr(unet, "object_patches", {}).items()}
    # (file, strength, strength of the model, online), by whatever Forge puts them together
    for key in getattr(unet, "lora_patches", {}):
        if isinstance(key, list | tuple) and len(key) > 3 and key[3]:
            parts[f"lora {key}"] = True
    own = {id(module): name for name, module in unet.model.named_modules()}
    contents = Contents(lambda value: f"module {own[id(value)]}" if id(value) in own else None)
    filled = {name: value for name, value in parts.items() if value not in ({}, [], None)}
    return [f"{name} {contents.digest(value)}" for name, value in filled.items()]
