"""Lumina 2: time 1 - s, and x0 - noise for an answer; two calls of one branch, the prompts' first."""

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from torch import Tensor

from ..pipelines import WIDTH, vae
from ..text_models import gemma2, gemma_tokenizer
from . import Family


def lumina_2(**scheduler: Any) -> Lumina2Pipeline:
    network = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 32, 32),
        cap_feat_dim=WIDTH,
    )
    autoencoder = vae(shift_factor=0.1, scaling_factor=0.5)
    pipe = Lumina2Pipeline(
        network, FlowMatchEulerDiscreteScheduler(**scheduler), autoencoder, gemma2(), gemma_tokenizer()
    )
    pipe.vae_scale_factor = 2  # it takes 8 for granted
    return pipe


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def time(fed: dict[str, Any]) -> Tensor:
    return 1 - fed["timestep"]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (-out,)


UNGUIDED, GUIDED = {"guidance_scale": 1.0}, {"guidance_scale": 4.0}
FAMILIES = {
    "lumina-2": Family(lambda: lumina_2(shift=6.0), latents, time, answer, options=UNGUIDED, guided=GUIDED, blank=False)
}
