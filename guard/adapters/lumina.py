"""Lumina Image 2: a transformer on flow times, conditioned on Gemma 2 tokens behind a system prompt."""

from typing import Any

from torch import Tensor

from ..denoiser import Condition
from .flow import FlowDenoiser
from .templates import Templated


class Lumina2Denoiser(FlowDenoiser):
    """Lumina2Pipeline; the network is fed 1 - s, and answers x0 - noise. Conditions: text (P, L, D), mask (P, L).

    The pipeline's own empty prompt, which it guides away from, has no system prompt, unlike a prompt that is empty.
    """

    family = "lumina-2"
    networks = ("Lumina2Transformer2DModel",)
    guidance_scale = 4.0
    tokens = 256

    @property
    def _patches(self) -> int:
        return self._channels  # what the pipeline takes for their number

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return -self.network(
            hidden_states=x,
            timestep=1 - time,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            encoder_attention_mask=condition.tensors["mask"].to(x.device),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        condition = Condition(text=arguments["encoder_hidden_states"], mask=arguments["encoder_attention_mask"])
        return arguments["hidden_states"], 1 - arguments["timestep"], condition, -output[0]

    def _encode(self, prompts: list[str]) -> Condition:
        text, mask, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, max_sequence_length=self.tokens
        )
        return Condition(text=text, mask=mask)

    def _encode_empty(self) -> Condition:
        _, _, text, mask = self.pipe.encode_prompt([""], device=self.device, max_sequence_length=self.tokens)
        return Condition(text=text, mask=mask)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(Templated(self.pipe.tokenizer, self._instructed), self.tokens)]

    def _instructed(self, prompt: str) -> str:
        return f"{self.pipe.system_prompt} <Prompt Start> {prompt}"
