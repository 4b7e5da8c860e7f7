"""Stable Diffusion 3 and Flux: transformers on flow times in [0, 1]."""

import math
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition, Levels, PredictionType
from .diffusers import PipelineDenoiser

TIMESTEPS = 1000  # flow times are fed, or rounded, as thousandths


class FlowDenoiser(PipelineDenoiser):
    """Rectified flow: x = (1 - s) x0 + s noise, the network's output is noise - x0."""

    max_shift = 1.15

    @property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        return "flow"

    def _make_levels(self) -> Levels:
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return Levels(None, shift=float(config.get("shift") or config.get("flow_shift") or 1.0))
        # the shift grows with the number of patches; here, at the model's own size
        patch = self._factor // self.pipe.vae_scale_factor
        patches = (self._sample_size[0] // patch) * (self._sample_size[1] // patch)
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, top = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        mu = base + (top - base) * (patches - low) / (high - low)
        linear = config.get("time_shift_type", "exponential") == "linear"
        return Levels(None, shift=mu if linear else math.exp(mu))

    @property
    def levels(self) -> Levels:  # type: ignore[override]
        if self.pipe.scheduler.config.get("use_dynamic_shifting"):
            return self._make_levels()  # depends on the network's size too, and costs nothing
        return super().levels


class StableDiffusion3Denoiser(FlowDenoiser):
    """StableDiffusion3Pipeline; the network is fed 1000 s. Conditions: text (P, L, D), pooled (P, D')."""

    family = "stable-diffusion-3"
    max_shift = 1.16
    t5_tokens = 256

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(
            hidden_states=x,
            timestep=time * TIMESTEPS,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            pooled_projections=condition.tensors["pooled"].to(x.device, x.dtype),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        condition = Condition(text=arguments["encoder_hidden_states"], pooled=arguments["pooled_projections"])
        return arguments["hidden_states"], arguments["timestep"] / TIMESTEPS, condition, output[0]

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.t5_tokens,
        )
        return Condition(text=text, pooled=pooled)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        clip = self.pipe.tokenizer_max_length
        limits = {"": clip, "_2": clip, "_3": self.t5_tokens}
        return [
            (getattr(self.pipe, f"tokenizer{part}"), limit)
            for part, limit in limits.items()
            if getattr(self.pipe, f"text_encoder{part}") is not None
        ]


class FluxDenoiser(FlowDenoiser):
    """FluxPipeline; latents are (B, C, H, W) here and packed into 2x2 patches for the network, which is fed s.

    Conditions: text (P, L, D), pooled (P, D'). Guidance-distilled networks (`guidance_embeds`) have no guidance vector.
    """

    family = "flux"
    guidance_scale = 3.5
    t5_tokens = 512

    @property
    def has_guidance(self) -> bool:  # type: ignore[override]
        return not self.network.config.guidance_embeds

    @property
    def _network_channels(self) -> int:
        return self.network.config.in_channels // 4

    @property
    def _factor(self) -> int:
        return self.pipe.vae_scale_factor * 2

    def packed(self, latents: Tensor) -> Tensor:
        rows, channels, height, width = latents.shape
        patches = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(rows, height * width // 4, channels * 4)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        rows, channels, height, width = x.shape
        h, w = height // 2, width // 2
        text = condition.tensors["text"].to(x.device, x.dtype)
        grid = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        ids = torch.stack([torch.zeros(h, w), *grid], dim=-1).reshape(h * w, 3)
        guidance = None if self.has_guidance else torch.full((rows,), self.guidance_scale, device=x.device)
        out = self.network(
            hidden_states=self.packed(x),
            # rounded as the pipeline rounds, in the network's dtype
            timestep=(time * TIMESTEPS).to(x.dtype) / TIMESTEPS,
            guidance=guidance,
            pooled_projections=condition.tensors["pooled"].to(x.device, x.dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=ids.to(x.device, x.dtype),
            return_dict=False,
        )[0]
        return out.reshape(rows, h, w, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)

    def _encode(self, prompts: list[str]) -> Condition:
        text, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.t5_tokens)
        return Condition(text=text, pooled=pooled)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        found = [(self.pipe.tokenizer, self.pipe.tokenizer_max_length), (self.pipe.tokenizer_2, self.t5_tokens)]
        return [(tokenizer, tokens) for tokenizer, tokens in found if tokenizer is not None]
