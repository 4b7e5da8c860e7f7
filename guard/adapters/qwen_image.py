"""Qwen-Image: a transformer on flow times and packed latents, conditioned on the tokens of a language model."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..condition import TOKENS
from ..denoiser import Condition
from ..errors import NotApplicable
from .packed import PackedFlowDenoiser, pack, unpack
from .templates import TemplateTokenizer, around_prompt


class QwenImageDenoiser(PackedFlowDenoiser):
    """QwenImagePipeline; the network is fed s. Conditions: text (P, L, D), tokens (P,), how many of the L count."""

    family = "qwen-image"
    networks = ("QwenImageTransformer2DModel",)
    also_told = ("encoder_hidden_states_mask", "img_shapes")
    argument_names: ClassVar = {"text": "prompt_embeds", "mask": "prompt_embeds_mask"}
    tokens = 512

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        text, mask = _with_mask(condition)
        out = self.network(
            hidden_states=pack(x),
            timestep=self._fed(x, time),
            encoder_hidden_states=text.to(x.device, x.dtype),
            encoder_hidden_states_mask=None if mask.all() else mask.to(x.device),
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return unpack(out, height, width)

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        shapes = arguments["img_shapes"]
        if any(len(shape) != 1 for shape in shapes):
            raise NotApplicable("an image takes part beside the one that is made: the check knows text prompts only")
        _, height, width = shapes[0][0]
        text, mask = arguments["encoder_hidden_states"], arguments.get("encoder_hidden_states_mask")
        mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device) if mask is None else mask.long()
        tokens = mask.sum(1)
        if not torch.equal(mask, _first(tokens, text.shape[1]).to(mask)):
            raise NotApplicable("the prompt's embeddings have gaps, which no prompt has: give embeddings of a text")
        x, raw = (unpack(part, 2 * height, 2 * width) for part in (arguments["hidden_states"], output[0]))
        return x, arguments["timestep"], Condition(text=text, tokens=tokens), raw

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        parts = [None if part is None else _with_mask(part) for part in (positive, negative)]
        conditions = [None if part is None else Condition(text=part[0], mask=part[1].long()) for part in parts]
        return super().as_arguments(*conditions)  # type: ignore[arg-type]

    def _encode(self, prompts: list[str]) -> Condition:
        text, mask = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.tokens)
        tokens = torch.full((len(text),), text.shape[1], device=text.device) if mask is None else mask.sum(1)
        return Condition(text=text, tokens=tokens)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        around = around_prompt(self.pipe.prompt_template_encode)
        # so many of the template's tokens are left out of what the network reads
        limit = self.pipe.prompt_template_encode_start_idx + self.tokens
        return [(TemplateTokenizer(self.pipe.tokenizer, *around), limit)]


def _first(tokens: Tensor, length: int) -> Tensor:
    """True for the first so many of each row, (P, L)."""
    return torch.arange(length, device=tokens.device) < tokens.unsqueeze(1)


def _with_mask(condition: Condition) -> tuple[Tensor, Tensor]:
    """Text (P, L, D), no longer than its longest row, and which of it counts, (P, L)."""
    text, tokens = condition.tensors["text"], condition.tensors[TOKENS]
    text = text[:, : int(tokens.max())]
    return text, _first(tokens, text.shape[1])
