"""Stable Diffusion 3 and 3.5: a transformer on flow times, conditioned on CLIP and T5 tokens."""

from typing import Any

from torch import Tensor

from ..denoiser import Condition
from .flow import TIMESTEPS, FlowDenoiser


class StableDiffusion3Denoiser(FlowDenoiser):
    """StableDiffusion3Pipeline; the network is fed 1000 s. Conditions: text (P, L, D), pooled (P, D')."""

    family = "stable-diffusion-3"
    networks = ("SD3Transformer2DModel",)
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

    def _text_places(self) -> list[tuple[Any, int, int]]:
        # two CLIPs side by side, T5 behind them
        return [
            (tokenizer, limit, self.pipe.tokenizer_max_length if tokenizer is self.pipe.tokenizer_3 else 0)
            for tokenizer, limit in self._tokenizers()
        ]

    def _tokenizers(self) -> list[tuple[Any, int]]:
        clip = self.pipe.tokenizer_max_length
        limits = {"": clip, "_2": clip, "_3": self.t5_tokens}
        return [
            (getattr(self.pipe, f"tokenizer{part}"), limit)
            for part, limit in limits.items()
            if getattr(self.pipe, f"text_encoder{part}") is not None
        ]
