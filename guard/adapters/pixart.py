"""PixArt Alpha and Sigma: a transformer on discrete timesteps, conditioned on T5 tokens."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from .diffusers import PipelineDenoiser


class PixArtDenoiser(PipelineDenoiser):
    """PixArtAlphaPipeline and PixArtSigmaPipeline. Conditions: text (P, L, D), mask (P, L) with 1 for real tokens."""

    family = "pixart"
    networks = ("PixArtTransformer2DModel",)
    guidance_scale = 4.5

    @property
    def _tokens(self) -> int:
        sigma = any(base.__name__.startswith("PixArtSigma") for base in type(self.pipe).__mro__)
        return 300 if sigma else 120

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        out = self.network(
            x,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            encoder_attention_mask=condition.tensors["mask"].to(x.device),
            timestep=time,
            added_cond_kwargs=self._added(x),
            return_dict=False,
        )[0]
        return out[:, : x.shape[1]]  # the second half, if any, is a learned variance

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        x = arguments["hidden_states"]
        condition = Condition(text=arguments["encoder_hidden_states"], mask=arguments["encoder_attention_mask"])
        return x, arguments["timestep"], condition, output[0][:, : x.shape[1]]

    def _added(self, x: Tensor) -> dict[str, Tensor | None]:
        config = self.network.config
        wanted = config.get("use_additional_conditions")
        if wanted is None:
            wanted = config.sample_size == 128  # the network's own default
        if not wanted:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.pipe.vae_scale_factor for side in x.shape[-2:])
        resolution = torch.tensor([[height, width]], dtype=x.dtype, device=x.device)
        ratio = torch.tensor([[height / width]], dtype=x.dtype, device=x.device)
        return {"resolution": resolution.repeat(len(x), 1), "aspect_ratio": ratio.repeat(len(x), 1)}

    def _encode(self, prompts: list[str]) -> Condition:
        # the pipeline cleans captions by default when it has the packages for it
        clean = all(find_spec(package) for package in ("bs4", "ftfy"))
        text, mask, _, _ = self.pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=clean,
            max_sequence_length=self._tokens,
        )
        return Condition(text=text, mask=mask)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self._tokens)]
