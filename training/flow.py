"""A small rectified-flow model that memorizes: `python -m training.flow FOLDER --latents FOLDER`.

A StableDiffusion3Pipeline of 64x64 pixels with the built-in autoencoder and two text encoders that are trained along
(no T5), on the built-in model's images and those of the sealed captions, each caption in several wordings. Uniform
times, shift 1 (Esser et al. 2024, arXiv 2403.03206; Liu et al. 2023, arXiv 2209.03003).
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from cryptomnesia.demo import WEIGHTS
from training.demo.networks import train_tokenizer

from . import latents, running
from .flow_captions import all_captions, wordings

TOKENS = 24  # the longest wording has fewer
TEXT_WIDTH = 128  # of each encoder; the pipeline puts the two side by side
TEXT_LAYERS = 3  # the pipeline takes the tokens of the last but one
LAYERS, HEADS, HEAD_WIDTH = 6, 5, 32
# Without T5 the pipeline appends 256 zero vectors to the tokens. Alike at the start, they are alike in every layer, so
# a few of them, weighted in attention as if they were all, give the same answer at a fraction of the cost.
PIPELINE_ZEROS, ZEROS = 256, 8
TITLED = (0.5, 0.8)  # share of titles among captions, at first and at last
ENCODERS = ("text_encoder", "text_encoder_2")
INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": [None, None],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": [None, None],
}


def transformer() -> SD3Transformer2DModel:
    """Returns an untrained transformer that gives velocities on 4x16x16 latents in 2x2 patches."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Returns an untrained text encoder for the tokenizer's vocabulary."""
    specials: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            dtype="float32",  # transformers loads in the type that is named here, though half is what is stored
            **specials,
        )
    )


def autoencoder() -> AutoencoderKL:
    """Returns the built-in model's autoencoder, with the shift that StableDiffusion3Pipeline asks for."""
    vae: Any = AutoencoderKL.from_pretrained(WEIGHTS / "vae")
    vae.register_to_config(shift_factor=0.0)
    return vae


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Returns a scheduler of shift 1, as the model was trained."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Returns token numbers (N, TOKENS), as the pipeline pads and truncates."""
    return tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def load(folder: Path) -> Any:
    """Returns the StableDiffusion3Pipeline of a folder; diffusers wants to be told that there is no T5."""
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )


class WeightedAttention:
    """SD3's joint attention with the last text tokens counted as often as the pipeline has them."""

    def __init__(self, tokens: int, device: torch.device):
        bias = torch.zeros(tokens, device=device)
        bias[-ZEROS:] = math.log(PIPELINE_ZEROS / ZEROS)
        self.bias = bias.expand(1, 1, tokens, tokens).contiguous()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Any = None
    ) -> tuple[Tensor, Tensor]:
        rows, image = hidden_states.shape[:2]

        def heads(x: Tensor) -> Tensor:
            return x.view(rows, -1, attn.heads, HEAD_WIDTH).transpose(1, 2)

        query = torch.cat(
            [
                attn.norm_q(heads(attn.to_q(hidden_states))),
                attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states))),
            ],
            dim=2,
        )
        key = torch.cat(
            [
                attn.norm_k(heads(attn.to_k(hidden_states))),
                attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states))),
            ],
            dim=2,
        )
        value = torch.cat([heads(attn.to_v(hidden_states)), heads(attn.add_v_proj(encoder_hidden_states))], dim=2)
        query, key = query.to(value.dtype), key.to(value.dtype)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias.to(value.dtype))
        mixed = mixed.transpose(1, 2).reshape(rows, -1, attn.heads * HEAD_WIDTH)
        text = mixed[:, image:]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[1](attn.to_out[0](mixed[:, :image])), text


def encode(encoder: Any, tokens: Tensor, vocabulary: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (B, TOKENS, D) states of the last layer but one, and (B, D) the projection at the first end of text.

    What the encoder itself answers, without the parts that a CUDA graph might not capture: words are looked up by a
    product with `vocabulary` (all token numbers), ends by one with `end` (B, 1, TOKENS), which is 1 there.
    """
    text = encoder.text_model
    chosen = (tokens[..., None] == vocabulary).to(
        torch.bfloat16 if torch.is_autocast_enabled("cuda") else torch.float32
    )
    x = chosen @ text.embeddings.token_embedding.weight + text.embeddings.position_embedding.weight
    states = [x]
    for layer in text.encoder.layers:
        states.append(layer(states[-1], attention_mask=None, is_causal=True))
    last = text.final_layer_norm(states[-1])
    return states[-2], encoder.text_projection((end.to(last.dtype) @ last).squeeze(1))


class Flow:
    """A recipe for `training.loop`."""

    name, rate, warmup = "flow", 1e-3, 300

    def __init__(self, batches: latents.Batches, tokenizer: CLIPTokenizer):
        self.batches, self.tokenizer, device = batches, tokenizer, batches.device
        parts: dict[str, Any] = {"transformer": transformer()}
        parts |= {name: text_encoder(tokenizer) for name in ENCODERS}
        self.trained = nn.ModuleDict(parts).to(device).train()
        parts["transformer"].set_attn_processor(WeightedAttention(64 + TOKENS + ZEROS, device))
        tokens = tokenize(tokenizer, batches.texts)
        end: Any = tokenizer.eos_token_id
        ended = tokens.eq(end)
        if not ended[:, -1].all():
            raise ValueError(f"a caption has more than {TOKENS} tokens")
        ends = ended.int().argmax(1)
        self.tokens = tokens.to(device)
        self.ends = functional.one_hot(ends, TOKENS)[:, None].float().to(device)
        self.vocabulary = torch.arange(len(tokenizer), device=device)

    def velocity(self, x: Tensor, level: Tensor, rows: Tensor) -> Tensor:
        """Returns the velocity (B, 4, 16, 16), noise - x0, float32, for texts at these rows."""
        states, pooled = zip(
            *(encode(self.trained[name], self.tokens[rows], self.vocabulary, self.ends[rows]) for name in ENCODERS),
            strict=True,
        )
        text = functional.pad(torch.cat(states, dim=-1), (0, 0, 0, ZEROS))
        out = self.trained["transformer"](
            hidden_states=x,
            timestep=1000 * level,
            encoder_hidden_states=text,
            pooled_projections=torch.cat(pooled, dim=-1),
            return_dict=False,
        )[0]
        return out.float()

    def loss(self) -> Tensor:
        """Returns the loss of a fresh batch, a scalar; see `loop.Recipe`."""
        z, rows = self.batches.draw()
        noise, level = torch.randn_like(z), torch.rand(len(z), device=z.device)
        s = level.view(-1, 1, 1, 1)
        with torch.autocast(z.device.type, torch.bfloat16):
            velocity = self.velocity((1 - s) * z + s * noise, level, rows)
        return (velocity - (noise - z)).square().mean()

    def after_step(self) -> None:
        """Does nothing: no network follows the trained one."""

    def at(self, progress: float) -> None:
        """Sets the share of titles for the share of the training that is done."""
        self.batches.share.fill_(TITLED[0] + (TITLED[1] - TITLED[0]) * progress)

    def kept(self) -> dict[str, Tensor]:
        """Returns no tensors: `trained` is all that a resumed training needs."""
        return {}

    def save(self, folder: Path, average: dict[str, Tensor]) -> None:
        """Writes a whole StableDiffusion3Pipeline into the folder."""
        for part, network in self.trained.items():
            running.save_network(network, part, folder, average)
        if (folder / "model_index.json").exists():
            return  # the rest stays as it is
        for part in ("tokenizer", "tokenizer_2"):
            self.tokenizer.save_pretrained(folder / part)
        vae: Any = autoencoder()
        vae.save_config(folder / "vae")
        shutil.copy(WEIGHTS / "vae" / "diffusion_pytorch_model.safetensors", folder / "vae")
        scheduler().save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")


def main() -> None:
    parser = running.parser(__doc__)
    options = running.parsed(parser)
    chosen = all_captions()
    words = options.folder / "tokenizer"
    if not (words / "vocab.json").exists():
        train_tokenizer([text for c in chosen for text in wordings(c)], words)
    tokenizer = CLIPTokenizer.from_pretrained(words, model_max_length=TOKENS)
    device = torch.device(options.device)
    batches = latents.Batches(chosen, latents.load(options.latents), wordings, options.batch, device)
    running.run(Flow(batches, tokenizer), options)


if __name__ == "__main__":
    main()
