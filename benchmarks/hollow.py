"""Pipelines of real models' geometry whose networks compute next to nothing, and count what they are asked.

Latents, patches, prompts' lengths, schedulers and calls are as in the real model, so that the library asks just what it
asks there; widths and depths are not, and each call is answered at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from tests.helpers.pipelines import WIDTH, clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer

from .true_shapes import SHAPES, TrueShape

SD_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
FEATURES = 8  # of a prompt, that a network's answer depends on
SMALL: dict[str, Any] = {  # of U-Nets, in place of the true widths
    "block_out_channels": (4, 4, 4, 4),
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "attention_head_dim": 1,
    "transformer_layers_per_block": 1,
}


@dataclass
class Asked:
    """What networks were asked.

    Attributes:
        calls: (rows, tokens) of each call of the denoising network.
        coded: (way, images) of each call of the autoencoder.
    """

    calls: list[tuple[int, int]] = field(default_factory=list)
    coded: list[tuple[str, int]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """All rows of the denoising network."""
        return sum(rows for rows, _ in self.calls)

    @property
    def largest(self) -> tuple[int, int]:
        """(rows, tokens) of the largest call; of none, if there was none."""
        return max(self.calls, default=(0, 0))

    @contextmanager
    def watched(self) -> Iterator["Asked"]:
        """Gives what is asked within the block alone."""
        before, coded, found = len(self.calls), len(self.coded), Asked()
        yield found
        found.calls, found.coded = self.calls[before:], self.coded[coded:]


def hollow(name: str, scheduler: Any = None) -> tuple[Any, Asked]:
    """Returns the pipeline of that name in SHAPES, with its own scheduler or another, and what its parts are asked."""
    shape, asked = SHAPES[name], Asked()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = _PIPELINES[name](shape, scheduler)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    network.forward = _Answer(asked)
    _empty_autoencoder(pipe.vae, shape, asked)
    pipe.set_progress_bar_config(disable=True)
    return pipe, asked


class _Answer:
    """A network's forward: a tenth of what it is shown, and patterns by how strongly the prompt asks for them."""

    __slots__ = ("_patterns", "asked")  # without attributes: what is counted is no part of the model's fingerprint

    def __init__(self, asked: Asked):
        self.asked, self._patterns = asked, {}

    def __call__(
        self, sample: Tensor | None = None, timestep: Any = None, encoder_hidden_states: Any = None, **told: Any
    ) -> Any:
        x = told["hidden_states"] if sample is None else sample
        self.asked.calls.append((len(x), encoder_hidden_states.shape[1]))
        features = encoder_hidden_states.float().mean(1)[:, :FEATURES]
        out = 0.1 * x + (features @ self._patterns_of(x)).view_as(x).to(x)
        return SimpleNamespace(sample=out) if told.get("return_dict", True) else (out,)

    def _patterns_of(self, x: Tensor) -> Tensor:
        size = x[0].numel()
        if size not in self._patterns:
            self._patterns[size] = torch.randn(FEATURES, size, generator=torch.Generator().manual_seed(0))
        return self._patterns[size]


def _empty_autoencoder(vae: Any, shape: TrueShape, asked: Asked) -> None:
    channels = shape.latent[0]

    def encode(image: Tensor) -> Any:
        asked.coded.append(("encode", len(image)))
        small = torch.nn.functional.avg_pool2d(image, 8).repeat(1, -(-channels // 3), 1, 1)[:, :channels]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: small))

    def decode(latent: Tensor, return_dict: bool = True, **rest: Any) -> Any:
        asked.coded.append(("decode", len(latent)))
        image = torch.nn.functional.interpolate(latent[:, :3], scale_factor=8)
        return SimpleNamespace(sample=image) if return_dict else (image,)

    vae.encode, vae.decode = encode, decode


def _vae(shape: TrueShape) -> Any:
    narrow: dict[str, Any] = {
        "block_out_channels": (4,) * 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 2,
        "layers_per_block": 1,
    }
    return AutoencoderKL(**narrow | shape.vae)


def _stable_diffusion(shape: TrueShape, scheduler: Any) -> Any:
    network = shape.network(**shape.config | SMALL | {"cross_attention_dim": WIDTH})
    scheduler = scheduler or PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False)
    none: Any = None  # of what the annotations want
    parts = _vae(shape), clip_encoder(), clip_tokenizer(), network, scheduler
    return StableDiffusionPipeline(*parts, none, none, none, False)


def _stable_diffusion_xl(shape: TrueShape, scheduler: Any) -> Any:
    told = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + WIDTH}
    small = SMALL | told | {"cross_attention_dim": 2 * WIDTH, "block_out_channels": (4, 4, 4)}
    scheduler = scheduler or EulerDiscreteScheduler(**SD_SCHEDULE, timestep_spacing="leading")
    texts = clip_encoder(), clip_encoder(True), clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(_vae(shape), *texts, shape.network(**shape.config | small), scheduler)


def _stable_diffusion_3(shape: TrueShape, scheduler: Any) -> Any:
    small = {
        "num_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "caption_projection_dim": 16,
        "joint_attention_dim": 2 * WIDTH,
        "pooled_projection_dim": 2 * WIDTH,
    }
    t5 = T5EncoderModel(T5Config(vocab_size=30, d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    clips = clip_encoder(True), clip_tokenizer(), clip_encoder(True), clip_tokenizer()
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0)
    network = shape.network(**shape.config | small)
    return StableDiffusion3Pipeline(network, scheduler, _vae(shape), *clips, t5, t5_tokenizer())


def _flux(shape: TrueShape, scheduler: Any) -> Any:
    small = {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 1,
        "axes_dims_rope": (4, 4, 8),
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
    }
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    texts = clip_encoder(), clip_tokenizer(), t5_encoder(), t5_tokenizer()
    return FluxPipeline(scheduler, _vae(shape), *texts, shape.network(**shape.config | small))


_PIPELINES: dict[str, Callable[[TrueShape, Any], Any]] = {
    "SD 1.5, 512 px": _stable_diffusion,
    "SDXL, 1024 px": _stable_diffusion_xl,
    "SD 3 medium, 1024 px": _stable_diffusion_3,
    "Flux.1 dev, 1024 px": _flux,
}
