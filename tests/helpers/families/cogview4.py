"""CogView4: noise - x0, and a time 1000 t that the scheduler shifts by the image's size to have the noise's share s;
two calls of one branch, the prompts' first."""

from typing import Any

from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ..pipelines import WIDTH, vae
from ..text_models import glm, glm_tokenizer
from . import Family

SHIFT = 0.25 + 0.75 * (16 / 256) ** 0.5  # of 4x4 patches


def cogview4() -> CogView4Pipeline:
    network = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=8,
        rope_axes_dim=(32, 32),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256, time_shift_type="linear"
    )
    return CogView4Pipeline(glm_tokenizer(), glm(), vae(scaling_factor=0.5), network, scheduler)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def time(fed: dict[str, Any]) -> Tensor:
    t = fed["timestep"] / 1000
    return SHIFT * t / (1 + (SHIFT - 1) * t)


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


UNGUIDED, GUIDED = {"guidance_scale": 1.0}, {"guidance_scale": 5.0}
FAMILIES = {"cogview-4": Family(cogview4, latents, time, answer, options=UNGUIDED, guided=GUIDED)}
