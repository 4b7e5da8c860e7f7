"""The shapes in which web UIs hold a model, around the networks of a diffusers pipeline; nothing of theirs is here."""

import re
import sys
import types
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

CHUNK = 75  # tokens that are read at once, without the two around them


class Texts(torch.nn.Module):
    """A text encoder behind the web UI's interface: words in brackets weigh more, long prompts are read in chunks."""

    def __init__(self, pipe: Any):
        super().__init__()
        self.transformer = pipe.text_encoder
        self.tokenizer = pipe.tokenizer

    def forward(self, prompts: Any) -> Tensor:
        rows = [self._one(prompt) for prompt in prompts]
        longest = max(row.shape[0] for row in rows)
        filler = self._chunks([[]])
        while any(row.shape[0] < longest for row in rows):
            rows = [row if row.shape[0] == longest else torch.cat([row, filler]) for row in rows]
        return torch.stack(rows)

    def _one(self, prompt: str) -> Tensor:
        weights: list[float] = []
        tokens: list[int] = []
        for text, weight in _weighted(prompt):
            own = self.tokenizer(text, add_special_tokens=False).input_ids
            tokens, weights = tokens + own, weights + [weight] * len(own)
        parts = [tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK)] or [[]]
        read = self._chunks(parts)
        strengths = torch.ones(len(read))
        for number, part in enumerate(parts):
            start = number * (CHUNK + 2) + 1
            strengths[start : start + len(part)] = torch.tensor(weights[number * CHUNK :][: len(part)])
        if not (strengths != 1).any():
            return read
        changed = read * strengths[:, None]
        return changed * (read.mean() / changed.mean())

    def _chunks(self, parts: list[list[int]]) -> Tensor:
        start, end, pad = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        rows = [[start, *part, end, *[pad] * (CHUNK - len(part))] for part in parts]
        return torch.cat(list(self.transformer(torch.tensor(rows))[0]))


def _weighted(prompt: str) -> list[tuple[str, float]]:
    found = re.findall(r"\(([^()]*):([\d.]+)\)|([^()]+)", prompt)
    return [(plain or text, float(weight or 1)) for text, weight, plain in found]


class _Wrapper(torch.nn.Module):
    conditioning_key = "crossattn"

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.diffusion_model = network


class CompVisModel(torch.nn.Module):
    """AUTOMATIC1111's `sd_model`: noise or velocity of latents in the network's own scale.

    Attributes:
        asked: Rows that the network was asked about so far.
    """

    def __init__(self, pipe: Any):
        super().__init__()
        self.model, self.cond_stage_model = _Wrapper(pipe.unet), Texts(pipe)
        self.parameterization = {"epsilon": "eps", "v_prediction": "v"}[pipe.scheduler.config.prediction_type]
        self.alphas_cumprod = self.alphas_cumprod_original = pipe.scheduler.alphas_cumprod.clone()
        self.asked = 0

    def get_learned_conditioning(self, prompts: Any) -> Tensor:
        with torch.no_grad():
            return self.cond_stage_model(list(prompts))

    def apply_model(self, x: Tensor, t: Tensor, cond: Mapping[str, list[Tensor]]) -> Tensor:
        assert cond["c_concat"][0].shape == (len(x), 5, 1, 1)
        self.asked += len(x)
        return self.model.diffusion_model(x, t, encoder_hidden_states=cond["c_crossattn"][0], return_dict=False)[0]


class _Predictor(torch.nn.Module):
    sigmas: Tensor

    def __init__(self, pipe: Any):
        super().__init__()
        alphas = pipe.scheduler.alphas_cumprod
        self.prediction_type = pipe.scheduler.config.prediction_type
        self.register_buffer("sigmas", ((1 - alphas) / alphas).sqrt())

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(0)


class KModel(torch.nn.Module):
    """Forge's wrapper of a network: clean latents of latents that are kept as x0 + sigma noise."""

    def __init__(self, pipe: Any):
        super().__init__()
        self.diffusion_model, self.predictor = pipe.unet, _Predictor(pipe)
        self.computation_dtype = pipe.unet.dtype

    def clean(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        predictor: Any = self.predictor
        wide = sigma.view(-1, 1, 1, 1)
        scale = (wide**2 + 1).sqrt()
        text = text.expand(len(x), *text.shape[1:])
        time = predictor.timestep(sigma).float()
        out = self.diffusion_model(x / scale, time, encoder_hidden_states=text, return_dict=False)[0]
        if predictor.prediction_type == "v_prediction":
            return x / (wide**2 + 1) - out * wide / scale
        return x - out * wide


class ForgeModel:
    """Forge's `sd_model`."""

    is_sd1, is_inpaint, use_distilled_cfg_scale = True, False, False

    def __init__(self, pipe: Any):
        self.texts = Texts(pipe)
        unet = types.SimpleNamespace(
            model=KModel(pipe), model_options={"transformer_options": {}}, load_device=torch.device("cpu")
        )
        unet.lora_patches, unet.object_patches = {}, {}
        encoders: Any = torch.nn.Module()
        encoders.clip_l = self.texts
        clip = types.SimpleNamespace(
            cond_stage_model=encoders, tokenizer=types.SimpleNamespace(clip_l=self.texts.tokenizer)
        )
        self.forge_objects = types.SimpleNamespace(unet=unet, clip=clip)
        self.asked = 0

    def get_learned_conditioning(self, prompts: Any) -> Tensor:
        with torch.inference_mode():
            return self.texts(list(prompts))


def install_backend(patch: pytest.MonkeyPatch, prepared: list[Any] | None = None) -> None:
    """Puts modules named as Forge's where they are looked for, which ask a `KModel`.

    Args:
        patch: Takes them away again.
        prepared: Gets what was prepared for sampling.
    """

    def prepare(unet: Any, x: Tensor) -> None:
        if prepared is not None:
            prepared.append((unet, tuple(x.shape)))

    def ask(model: Any, cond: Any, uncond: Any, x: Tensor, sigma: Tensor, options: Any) -> tuple[Tensor, None]:
        assert uncond is None and len(cond) == 1
        with torch.inference_mode():
            return model.clean(x, sigma, cond[0]["cross_attn"]), None

    sampling = types.ModuleType("backend.sampling.sampling_function")
    conditions = types.ModuleType("backend.sampling.condition")
    sampling.sampling_prepare, sampling.calc_cond_uncond_batch = prepare, ask  # type: ignore[attr-defined]
    conditions.compile_conditions = lambda cond: [{"cross_attn": cond}]  # type: ignore[attr-defined]
    package = types.ModuleType("backend")
    package.sampling = types.ModuleType("backend.sampling")  # type: ignore[attr-defined]
    for module in (package, package.sampling, sampling, conditions):  # type: ignore[attr-defined]
        patch.setitem(sys.modules, module.__name__, module)
