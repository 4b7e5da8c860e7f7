"""AuraFlow: time s, noise - x0."""

from typing import Any

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from ..pipelines import WIDTH, t5_tokenizer, vae
from . import Family


def auraflow() -> AuraFlowPipeline:
    network = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    config = UMT5Config(vocab_size=30, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.73)
    return AuraFlowPipeline(t5_tokenizer(), UMT5EncoderModel(config), vae(), network, scheduler)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


UNGUIDED, GUIDED = {"guidance_scale": 1.0}, {"guidance_scale": 3.5}
FAMILIES = {"auraflow": Family(auraflow, latents, lambda fed: fed["timestep"], answer, options=UNGUIDED, guided=GUIDED)}
