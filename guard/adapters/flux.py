"""Flux dev, schnell and Krea: a transformer on flow times and packed latents, conditioned on CLIP and T5."""

from typing import Any

import torch
from torch import Tensor

from ..branches import at_scale
from ..denoiser import Condition
from ..errors import NotApplicable
from .packed import PackedFlowDenoiser, pack, places, unpack


class FluxDenoiser(PackedFlowDenoiser):
    """FluxPipeline; the network is fed s, rounded to its dtype. Conditions: text (P, L, D), pooled (P, D').

    With `guidance_embeds` (dev, Krea) the guidance scale is an input. Without (schnell) the network was distilled, too:
    the pipeline never asks it about the empty prompt by default.
    """

    family = "flux"
    networks = ("FluxTransformer2DModel",)
    guidance_scale = 3.5
    t5_tokens = 512

    @property
    def takes_scale(self) -> bool:
        return self._guidance_embeds(getattr(self.network, "time_text_embed", None))

    @property
    def distilled(self) -> bool:
        return True

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        text = condition.tensors["text"].to(x.device, x.dtype)
        out = self.network(
            hidden_states=pack(x),
            timestep=self._fed(x, time),
            guidance=self._told(x, condition) if self.takes_scale else None,
            pooled_projections=condition.tensors["pooled"].to(x.device, x.dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=torch.nn.functional.pad(places(height // 2, width // 2), (1, 0)).to(x.device, x.dtype),
            return_dict=False,
        )[0]
        return unpack(out, height, width)

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        height, width = (2 * (int(side) + 1) for side in arguments["img_ids"][-1, 1:])
        condition = Condition(text=arguments["encoder_hidden_states"], pooled=arguments["pooled_projections"])
        if arguments.get("guidance") is not None:
            condition = at_scale(condition, float(arguments["guidance"][0]))
        x, raw = (unpack(tokens, height, width) for tokens in (arguments["hidden_states"], output[0]))
        return x, arguments["timestep"], condition, raw

    def _encode(self, prompts: list[str]) -> Condition:
        text, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.t5_tokens)
        return Condition(text=text, pooled=pooled)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        found = [(self.pipe.tokenizer, self.pipe.tokenizer_max_length), (self.pipe.tokenizer_2, self.t5_tokens)]
        return [(tokenizer, tokens) for tokenizer, tokens in found if tokenizer is not None]


class FluxControlNetDenoiser(FluxDenoiser):
    """FluxControlNetPipeline: its network without what a ControlNet adds, which a prompt alone does not tell."""

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        if any(arguments.get(f"controlnet_{part}_samples") is not None for part in ("block", "single_block")):
            raise NotApplicable(
                "a ControlNet takes part, so that more than the prompt decides what is made: ask about the prompt "
                "alone with guard.check()"
            )
        return super().read_call(arguments, output)
