"""Chroma: a transformer of the Flux kind on flow times and packed latents, conditioned on T5 tokens with a mask."""

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from .packed import PackedFlowDenoiser, pack, places, unpack


class ChromaDenoiser(PackedFlowDenoiser):
    """ChromaPipeline; the network is fed s. Conditions: text (P, L, D), mask (P, L) with 1 for what is attended to.

    The mask leaves one token of padding in, as the pipeline does.
    """

    family = "chroma"
    networks = ("ChromaTransformer2DModel",)
    also_told = ("attention_mask",)
    guidance_scale = 5.0
    tokens = 512

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        text, mask = (condition.tensors[name].to(x.device, x.dtype) for name in ("text", "mask"))
        patches = pack(x)
        out = self.network(
            hidden_states=patches,
            timestep=self._fed(x, time),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=torch.nn.functional.pad(places(height // 2, width // 2), (1, 0)).to(x.device, x.dtype),
            attention_mask=torch.cat([mask, mask.new_ones(patches.shape[:2])], dim=1),
            return_dict=False,
        )[0]
        return unpack(out, height, width)

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        height, width = (2 * (int(side) + 1) for side in arguments["img_ids"][-1, 1:])
        text = arguments["encoder_hidden_states"]
        condition = Condition(text=text, mask=arguments["attention_mask"][:, : text.shape[1]])
        x, raw = (unpack(part, height, width) for part in (arguments["hidden_states"], output[0]))
        return x, arguments["timestep"], condition, raw

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, mask, _, _, _ = self.pipe.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False, max_sequence_length=self.tokens
        )
        return Condition(text=text, mask=mask)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.tokens)]
