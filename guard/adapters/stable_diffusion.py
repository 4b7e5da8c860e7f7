"""Stable Diffusion 1.x, 2.x and XL: a UNet on discrete timesteps."""

from typing import Any

import torch
from torch import Tensor

from ..branches import at_scale
from ..denoiser import Condition
from ..errors import InputError, NotApplicable
from .diffusers import PipelineDenoiser


class StableDiffusionDenoiser(PipelineDenoiser):
    """StableDiffusionPipeline; noise prediction (1.x) or v-prediction (2.x at 768), as the scheduler's config says.

    Conditions: text (P, L, D).
    """

    network_name = "unet"
    networks = ("UNet2DConditionModel",)
    family = "stable-diffusion"
    guidance_scale = 7.5

    @property
    def takes_scale(self) -> bool:
        """True for latent consistency models and the like, whose configuration says so."""
        says = self.network.config.get("time_cond_proj_dim") is not None
        embedding = getattr(self.network, "time_embedding", None)
        if embedding is not None and (getattr(embedding, "cond_proj", None) is not None) != says:
            raise InputError(
                "the network's configuration (time_cond_proj_dim) and its weights contradict each other on whether it "
                "is told its guidance scale: load it with the configuration that belongs to it"
            )
        return says

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        unet = self.network
        self._require_text_only()
        text = condition.tensors["text"].to(x.device, x.dtype)
        return unet(
            x,
            time,
            encoder_hidden_states=text,
            timestep_cond=self._embedded_scale(x, condition),
            added_cond_kwargs=self._added(x, condition),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        self._require_text_only()
        time, x = torch.as_tensor(arguments["timestep"]), arguments["sample"]
        condition = Condition(text=arguments["encoder_hidden_states"], **self._read_added(arguments))
        told = arguments.get("timestep_cond")
        if told is not None:
            condition = at_scale(condition, self.pipe.guidance_scale)
            if not torch.allclose(told, self._embedded_scale(x, condition).expand_as(told), atol=1e-3):
                raise NotApplicable("the network is told another guidance scale than the pipeline's: it is not known")
        return x, time, condition, output[0]

    def _read_added(self, arguments: dict[str, Any]) -> dict[str, Tensor]:
        return {}

    def _require_text_only(self) -> None:
        # loading one sets the configuration's attribute, and not its entry
        if getattr(self.network.config, "encoder_hid_dim_type", None) == "ip_image_proj":
            raise NotApplicable(
                "an IP-Adapter conditions this model on an image: call pipe.unload_ip_adapter() to ask about prompts"
            )

    def _embedded_scale(self, x: Tensor, condition: Condition) -> Any:
        width = self.network.config.get("time_cond_proj_dim")
        if width is None:
            return None
        scales = self._told(x, condition).cpu() - 1
        return self.pipe.get_guidance_scale_embedding(scales, embedding_dim=width).to(x.device, x.dtype)

    def _added(self, x: Tensor, condition: Condition) -> dict[str, Tensor] | None:
        return None

    def _encode(self, prompts: list[str]) -> Condition:
        return Condition(text=self.pipe.encode_prompt(prompts, self.device, 1, False)[0])

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.pipe.tokenizer.model_max_length)]

    def _text_places(self) -> list[tuple[Any, int, int]]:
        return [(tokenizer, limit, 0) for tokenizer, limit in self._tokenizers()]


class LatentConsistencyDenoiser(StableDiffusionDenoiser):
    """LatentConsistencyModelPipeline: a Stable Diffusion that is told its guidance, and sampled in a few steps."""

    guidance_scale = 8.5


class StableDiffusionXLDenoiser(StableDiffusionDenoiser):
    """StableDiffusionXLPipeline. Conditions: text (P, L, D), pooled (P, D'), sizes (P, 6) or none.

    Without sizes, the size embedding says what the pipeline says by default: an uncropped original of the size that is
    made.
    """

    family = "stable-diffusion-xl"
    guidance_scale = 5.0

    def _added(self, x: Tensor, condition: Condition) -> dict[str, Tensor] | None:
        height, width = (side * self.pipe.vae_scale_factor for side in x.shape[-2:])
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=x.dtype, device=x.device)
        ids = condition.tensors.get("sizes", ids.repeat(len(x), 1))
        return {"text_embeds": condition.tensors["pooled"].to(x.device, x.dtype), "time_ids": ids.to(x.device, x.dtype)}

    def _read_added(self, arguments: dict[str, Any]) -> dict[str, Tensor]:
        added = arguments["added_cond_kwargs"]
        return {"pooled": added["text_embeds"], "sizes": added["time_ids"]}

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, pooled, _ = self.pipe.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Condition(text=text, pooled=pooled)

    def _encode_empty(self) -> Condition:
        empty = super()._encode_empty()
        # trained with zeros for the empty prompt where the pipeline says so; but one that was distilled, with none
        if self.reference != "empty branch" or not self.pipe.config.get("force_zeros_for_empty_prompt"):
            return empty
        return Condition(**{name: torch.zeros_like(tensor) for name, tensor in empty.tensors.items()})

    def _tokenizers(self) -> list[tuple[Any, int]]:
        found = [t for t in (self.pipe.tokenizer, self.pipe.tokenizer_2) if t is not None]
        return [(tokenizer, tokenizer.model_max_length) for tokenizer in found]
