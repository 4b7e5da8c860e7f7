"""Flux.2 dev and klein: a transformer on flow times and packed latents, conditioned on layers of a language model."""

from typing import Any

import torch
from torch import Tensor

from ..branches import at_scale
from ..denoiser import Condition
from ..errors import NotApplicable
from .packed import PackedFlowDenoiser, pack, places, unpack
from .templates import TemplateTokenizer, around_prompt

_STEPS = 50  # of the pipelines' default, which the shift depends on
_PLACE = "{}"  # where the prompt belongs in a template


class Flux2Denoiser(PackedFlowDenoiser):
    """Flux2Pipeline (dev), told its guidance scale; the network is fed s. Conditions: text (P, L, D).

    Latents are (B, C, H, W) as the autoencoder's, normalized by its statistics of patches of 2x2.
    """

    family = "flux-2"
    networks = ("Flux2Transformer2DModel",)
    guidance_scale = 4.0
    tokens = 512

    @property
    def takes_scale(self) -> bool:
        return self._guidance_embeds(getattr(self.network, "time_guidance_embed", None))

    def packed(self, latents: Tensor) -> Tensor:
        """Returns latents (B, C, H, W) as patches that are channels, (B, 4 C, H / 2, W / 2)."""
        height, width = latents.shape[-2:]
        return pack(latents).transpose(1, 2).reshape(len(latents), -1, height // 2, width // 2)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        text = condition.tensors["text"].to(x.device, x.dtype)
        out = self.network(
            hidden_states=pack(x),
            timestep=self._fed(x, time),
            guidance=self._told(x, condition) if self.takes_scale else None,
            encoder_hidden_states=text,
            # time, row, column and number of token
            txt_ids=torch.nn.functional.pad(torch.arange(text.shape[1]).unsqueeze(1), (3, 0)).to(x.device),
            img_ids=torch.nn.functional.pad(places(height // 2, width // 2), (1, 1)).to(x.device),
            return_dict=False,
        )[0]
        return unpack(out, height, width)

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        ids = arguments["img_ids"]
        ids = ids[0] if ids.ndim == 3 else ids
        if ids[:, 0].any():
            raise NotApplicable("a reference image takes part: the check knows text prompts only")
        height, width = (2 * (int(side) + 1) for side in ids[-1, 1:3])
        condition = Condition(text=arguments["encoder_hidden_states"])
        if self.takes_scale:
            condition = at_scale(condition, float(arguments["guidance"][0]))
        x, raw = (unpack(part, height, width) for part in (arguments["hidden_states"], output[0]))
        return x, arguments["timestep"], condition, raw

    def _mu(self, patches: int) -> float:
        # two lines that were fitted for 10 and 200 steps; what lies between is interpolated
        few, many = 8.73809524e-05 * patches + 1.89833333, 0.00016927 * patches + 0.45666666
        return many if patches > 4300 else many + (few - many) * (200 - _STEPS) / 190

    def _encode(self, prompts: list[str]) -> Condition:
        text, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.tokens)
        return Condition(text=text)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        around = around_prompt(self._template(), _PLACE)
        return [(TemplateTokenizer(self.pipe.tokenizer, *around, self.tokens), self.tokens)]

    def _template(self) -> str:
        """The chat that a prompt becomes, with `_PLACE` for the prompt."""
        said = (("system", self.pipe.system_message), ("user", _PLACE))
        chat = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
        return self.pipe.tokenizer.apply_chat_template(chat, add_generation_prompt=False, tokenize=False)


class Flux2KleinDenoiser(Flux2Denoiser):
    """Flux2KleinPipeline: guided by two branches, or distilled to a few steps, as its configuration says."""

    family = "flux-2-klein"

    @property
    def takes_scale(self) -> bool:
        return False  # this pipeline tells its network nothing

    def _template(self) -> str:
        chat = [{"role": "user", "content": _PLACE}]
        return self.pipe.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
