"""HiDream I1: a transformer on flow times, conditioned on tokens of CLIP twice, T5 and Llama."""

import math
from typing import Any

from torch import Tensor

from ..denoiser import Condition
from ..errors import InputError
from .flow import TIMESTEPS, FlowDenoiser


class HiDreamDenoiser(FlowDenoiser):
    """HiDreamImagePipeline; the network is fed 1000 s, and answers x0 - noise. Conditions: text (P, L, D) of T5,
    llama (P, layers, L, D), pooled (P, D').

    Nothing in a pipeline tells Dev and Fast from the model that they were distilled from.
    """

    family = "hidream"
    networks = ("HiDreamImageTransformer2DModel",)
    guidance_scale = 5.0
    tokens = 128

    @property
    def _factor(self) -> int:
        return self.pipe.vae_scale_factor * 2

    @property
    def _patches(self) -> int:
        return self.network.max_seq

    def _mu(self, patches: int) -> float:
        return 0.5 + (1.15 - 0.5) * (patches - 256) / (4096 - 256)  # whatever the scheduler says

    @property
    def text_encoders(self) -> list[Any]:
        last = getattr(self.pipe, "text_encoder_4", None)
        return super().text_encoders + ([] if last is None else [last])

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns (C, H, W) of the latent that the pipeline makes where an image of height x width is asked for: one of
        that shape, but of the area of the model's own size."""
        channels, *sides = super().latent_shape(height, width)
        scale, own = self.pipe.vae_scale_factor, self._sample_size
        rows, columns = (side * scale for side in sides)
        grown = math.sqrt((own[0] * scale) * (own[1] * scale) / (columns * rows))
        rows, columns = (int(side * grown // self._factor * self._factor) // scale for side in (rows, columns))
        return channels, rows, columns

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        text, llama, pooled = (condition.tensors[name].to(x.device, x.dtype) for name in ("text", "llama", "pooled"))
        return -self.network(
            hidden_states=x,
            timesteps=time * TIMESTEPS,
            encoder_hidden_states_t5=text,
            encoder_hidden_states_llama3=llama.transpose(0, 1),
            pooled_embeds=pooled,
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        condition = Condition(
            text=arguments["encoder_hidden_states_t5"],
            llama=arguments["encoder_hidden_states_llama3"].transpose(0, 1),
            pooled=arguments["pooled_embeds"],
        )
        return arguments["hidden_states"], arguments["timesteps"] / TIMESTEPS, condition, -output[0]

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        found = {}
        for prefix, condition in (("", positive), ("negative_", negative)):
            if condition is not None:
                found |= {
                    f"{prefix}prompt_embeds_t5": condition.tensors["text"],
                    f"{prefix}prompt_embeds_llama3": condition.tensors["llama"].transpose(0, 1).contiguous(),
                    f"{prefix}pooled_prompt_embeds": condition.tensors["pooled"],
                }
        return found

    def _require_text(self) -> None:
        for kind in ("text_encoder", "tokenizer"):
            for name in (kind, *(f"{kind}_{number}" for number in (2, 3, 4))):
                if getattr(self.pipe, name, None) is None:
                    raise InputError(
                        f"this {type(self.pipe).__name__} has no {name.replace('_', ' ')}, so that it cannot read "
                        "prompts: load it with all four"
                    )

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, llama, _, pooled, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, max_sequence_length=self.tokens
        )
        return Condition(text=text, llama=llama.transpose(0, 1), pooled=pooled)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        found = [getattr(self.pipe, f"tokenizer{part}", None) for part in ("", "_2", "_3", "_4")]
        return [
            (tokenizer, min(self.tokens, tokenizer.model_max_length)) for tokenizer in found if tokenizer is not None
        ]
