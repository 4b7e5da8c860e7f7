"""Stable Diffusion 1.x, 2.x and XL: a UNet on discrete timesteps."""

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..errors import NotApplicable
from .diffusers import PipelineDenoiser


class StableDiffusionDenoiser(PipelineDenoiser):
    """StableDiffusionPipeline; noise prediction (1.x) or v-prediction (2.x at 768), as the scheduler's config says.

    Conditions: text (P, L, D).
    """

    network_name = "unet"
    family = "stable-diffusion"
    guidance_scale = 7.5

    @property
    def has_guidance(self) -> bool:  # type: ignore[override]
        """False for latent consistency models, whose guidance is an input of the network."""
        return self.network.config.get("time_cond_proj_dim") is None

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        unet = self.network
        self._require_text_only()
        text = condition.tensors["text"].to(x.device, x.dtype)
        return unet(
            x,
            time,
            encoder_hidden_states=text,
            timestep_cond=self._guidance_embedding(x),
            added_cond_kwargs=self._added(x, condition),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        self._require_text_only()
        time = torch.as_tensor(arguments["timestep"])
        condition = Condition(text=arguments["encoder_hidden_states"], **self._read_added(arguments))
        return arguments["sample"], time, condition, output[0]

    def _read_added(self, arguments: dict[str, Any]) -> dict[str, Tensor]:
        return {}

    def _require_text_only(self) -> None:
        if self.network.config.get("encoder_hid_dim_type") == "ip_image_proj":
            raise NotApplicable(
                "an IP-Adapter conditions this model on an image: call pipe.unload_ip_adapter() to ask about prompts"
            )

    def _guidance_embedding(self, x: Tensor) -> Tensor | None:
        width = self.network.config.get("time_cond_proj_dim")
        if width is None:
            return None
        scales = torch.full((len(x),), self.guidance_scale - 1)
        return self.pipe.get_guidance_scale_embedding(scales, embedding_dim=width).to(x.device, x.dtype)

    def _added(self, x: Tensor, condition: Condition) -> dict[str, Tensor] | None:
        return None

    def _encode(self, prompts: list[str]) -> Condition:
        return Condition(text=self.pipe.encode_prompt(prompts, self.device, 1, False)[0])

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.pipe.tokenizer.model_max_length)]


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
        # the model was trained with zeros for the empty prompt where the pipeline says so
        if not self.pipe.config.get("force_zeros_for_empty_prompt"):
            return empty
        return Condition(**{name: torch.zeros_like(tensor) for name, tensor in empty.tensors.items()})

    def _tokenizers(self) -> list[tuple[Any, int]]:
        found = [t for t in (self.pipe.tokenizer, self.pipe.tokenizer_2) if t is not None]
        return [(tokenizer, tokenizer.model_max_length) for tokenizer in found]
