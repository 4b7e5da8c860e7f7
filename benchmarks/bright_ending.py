"""Bright Ending: attention of the last step on the end of the text (Chen et al. 2024, arXiv 2410.21665).

As we understand it: in memorized images the cross-attention of the final step rests on the end token, where it is
memorized. The map is the attention probability of each latent pixel to the first end-of-text token, mean over heads and
over the first two cross-attention layers of the finest resolution on the way down, of the conditional branch at the
last latent, enlarged to the latent's size.
"""

from typing import Any

import torch
from torch import Tensor

LAYERS = 2


class _Recording:
    """Plain attention that keeps its probabilities, mean over heads, (B, pixels, tokens)."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key, value = (attn.head_to_batch_dim(layer(context)) for layer in (attn.to_k, attn.to_v))
        weights = attn.get_attention_scores(query, key)
        self.seen = weights.view(len(hidden_states), -1, *weights.shape[1:]).mean(1)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(weights, value))))


def bright_ending(pipe: Any, x: Tensor, timestep: int, prompts: list[str]) -> Tensor:
    """(B, h, w) float32 of latents (B, C, h, w); higher = more likely memorized there. The pipe is as before after."""
    tokens = pipe.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    ends = (tokens == pipe.tokenizer.eos_token_id).float().argmax(1)
    text = pipe.encode_prompt(prompts, pipe.device, 1, False)[0]
    before = pipe.unet.attn_processors
    layers = [name for name in before if name.startswith("down_blocks") and ".attn2." in name]
    recorders = {name: _Recording() for name in layers}
    try:
        pipe.unet.set_attn_processor({name: recorders.get(name, own) for name, own in before.items()})
        pipe.unet(x, timestep, encoder_hidden_states=text)
    finally:
        pipe.unet.set_attn_processor(before)
    maps = [r.seen for r in recorders.values() if r.seen is not None]
    finest = max(found.shape[1] for found in maps)
    chosen = torch.stack([found for found in maps if found.shape[1] == finest][:LAYERS]).mean(0)
    side = round(finest**0.5)
    own = chosen[torch.arange(len(x)), :, ends].view(len(x), 1, side, side)
    return torch.nn.functional.interpolate(own, x.shape[-2:], mode="bilinear").squeeze(1)
