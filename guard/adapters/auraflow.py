"""AuraFlow: a transformer on flow times in [0, 1], conditioned on T5 tokens."""

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from .flow import FlowDenoiser


class AuraFlowDenoiser(FlowDenoiser):
    """AuraFlowPipeline; the network is fed s. Conditions: text (P, L, D), zeros where there is padding."""

    family = "auraflow"
    networks = ("AuraFlowTransformer2DModel",)
    guidance_scale = 3.5
    tokens = 256

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(
            x,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            timestep=time.to(x.dtype),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        condition = Condition(text=arguments["encoder_hidden_states"])
        return arguments["hidden_states"], arguments["timestep"], condition, output[0]

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        found = super().as_arguments(positive, negative)
        # the call wants masks beside embeddings, and makes no use of them
        masks = {
            name.replace("embeds", "attention_mask"): torch.ones(text.shape[:2], device=text.device)
            for name, text in found.items()
        }
        return found | masks

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, max_sequence_length=self.tokens
        )
        return Condition(text=text)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.tokens)]
