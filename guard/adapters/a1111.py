"""A model of AUTOMATIC1111's web UI as a denoiser: CompVis' and Stability's networks, in the scale of the network."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..denoiser import PredictionType
from ..errors import NotApplicable
from ..levels import Levels
from .webui import AsPrompts, WebUIDenoiser

_PARAMETERIZATIONS: dict[str, PredictionType] = {"eps": "epsilon", "v": "v"}
_FROM_IMAGES = ("concat", "hybrid", "crossattn-adm", "hybrid-adm")  # what else a network is told, as ldm names it
_REFINER_WIDTH = 1280  # of texts; only SDXL's refiner has it beside a vector


class CompVisDenoiser(WebUIDenoiser):
    """An `sd_model` of AUTOMATIC1111: Stable Diffusion 1.x, 2.x and XL.

    Args:
        model: Has `apply_model(x, t, condition)`, `alphas_cumprod`, `parameterization`, `model.diffusion_model`,
            `cond_stage_model` or `conditioner`, and `get_learned_conditioning`.
        shape, as_prompts, settings: As for `WebUIDenoiser`.
        image_conditioning: image_conditioning(x) -> what the web UI's sampler hands over as the image that is painted
            over; by default zeros, which text-to-image networks do not look at.
        within: A context that the network is asked in, e.g. the web UI's autocast.
        device, dtype: Where and in what the network computes; by default as its weights are.

    The noise levels are those of the moment: the web UI changes them just before it samples.
    """

    def __init__(
        self,
        model: Any,
        shape: Sequence[int],
        *,
        as_prompts: AsPrompts | None = None,
        settings: Iterable[str] = (),
        image_conditioning: Callable[[Tensor], Tensor] | None = None,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(model, shape, as_prompts=as_prompts, settings=settings)
        self._image_conditioning, self._within = image_conditioning, within
        first = next(iter(self.network.parameters()))
        self.device, self.dtype = device or first.device, dtype or first.dtype
        self._settled = False

    @property
    def network(self) -> torch.nn.Module:
        return self.model.model.diffusion_model

    @property
    def text_encoder(self) -> torch.nn.Module:
        encoder = getattr(self.model, "cond_stage_model", None)
        return self.model.conditioner if encoder is None else encoder

    @property
    def family(self) -> str:  # type: ignore[override]
        return "stable-diffusion-xl" if "pooled" in self.empty.tensors else "stable-diffusion"

    @property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        name = getattr(self.model, "parameterization", None)
        if name not in _PARAMETERIZATIONS:
            raise NotApplicable(f"models of the parameterization {name!r} are not known here: there is no score")
        return _PARAMETERIZATIONS[name]

    @cached_property
    def levels(self) -> Levels:  # type: ignore[override]
        return Levels(self.model.alphas_cumprod)

    def require_guidance(self) -> None:
        """Raises NotApplicable for other models than text-to-image ones on discrete noise levels, and for networks in
        whose place an extension answers."""
        if not isinstance(getattr(self.model, "alphas_cumprod", None), Tensor):
            raise NotApplicable(
                "this model has no discrete noise levels: Stable Diffusion 1.x, 2.x and XL are known here, no others"
            )
        told = getattr(self.model.model, "conditioning_key", None)
        taken = getattr(self.network, "in_channels", self.channels)
        if told in _FROM_IMAGES or taken != self.channels:
            raise NotApplicable(
                "inpainting, editing and depth models do not start from pure noise: a check says nothing there"
            )
        if "pooled" in self.empty.tensors and self.empty.tensors["text"].shape[2] == _REFINER_WIDTH:
            raise NotApplicable("refiners do not start from pure noise: a check says nothing there")
        if "forward" in vars(self.network):
            raise NotApplicable(
                "an extension, such as ControlNet, answers in the network's place: a prompt cannot be asked about alone"
            )

    def settle(self) -> None:
        if self._settled:  # for as long as this object lives: one batch
            return
        x = torch.zeros(1, *self._shape, device=self.device)
        with torch.no_grad():
            self._answer(x, torch.zeros(1, dtype=torch.long, device=self.device), self.write(self.empty))
        self._settled = True

    def _answer(self, x: Tensor, time: Tensor, conditioning: Any) -> Tensor:
        image = x.new_zeros(len(x), 5, 1, 1) if self._image_conditioning is None else self._image_conditioning(x)
        if isinstance(conditioning, dict):
            told = {name: value.to(x.device) for name, value in conditioning.items()}
        else:
            told = {"c_crossattn": [conditioning.to(x.device)]}
        with self._within():
            return self.model.apply_model(x, time.to(x.device), {**told, "c_concat": [image]})
