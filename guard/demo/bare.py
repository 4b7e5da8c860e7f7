"""The built-in model in torch alone, for questions about prompts.

To import diffusers and transformers takes many times as long as to ask so small a model. Its answers and its
fingerprint are those of `load_demo()`, to the bit; what makes images needs the pipeline.
"""

import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..denoiser import CallableDenoiser
from ..errors import require
from ..identity import fingerprint
from ..prompt_text import LONGEST
from . import WEIGHTS

TOKENS = 77
HEADS = 4  # of every attention, in both networks
GROUPS = 16  # of every group norm


class Weights:
    """The tensors of one network, each by its name in diffusers' and transformers' files, in float32."""

    def __init__(self, part: str):
        file = WEIGHTS / part / f"{'' if part == 'text_encoder' else 'diffusion_pytorch_'}model.safetensors"
        stored = require("safetensors.torch", "diffusers").load_file(file)
        self.tensors: dict[str, Tensor] = {name.removeprefix("text_model."): w.float() for name, w in stored.items()}

    def __contains__(self, layer: str) -> bool:
        return f"{layer}.weight" in self.tensors

    def linear(self, layer: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{layer}.weight"], self.tensors.get(f"{layer}.bias"))

    def conv(self, layer: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.tensors[f"{layer}.weight"]
        return F.conv2d(x, weight, self.tensors[f"{layer}.bias"], stride, padding=weight.shape[-1] // 2)

    def group_norm(self, layer: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.group_norm(x, GROUPS, self.tensors[f"{layer}.weight"], self.tensors[f"{layer}.bias"], eps)

    def layer_norm(self, layer: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{layer}.weight"], self.tensors[f"{layer}.bias"], 1e-5)

    def attention(self, layers: Sequence[str], x: Tensor, context: Tensor, *, causal: bool = False) -> Tensor:
        """Of x (B, N, C) on the context (B, M, D); the layers for queries, keys, values and output by name."""
        parts = zip(layers, (x, context, context), strict=False)
        q, k, v = (self.linear(layer, part).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer, part in parts)
        answer = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.linear(layers[3], answer.transpose(1, 2).flatten(2))


# --- the network ---


def predict_noise(w: Weights, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
    """The UNet's noise, of latents (B, 4, H, W) at integer timesteps (B,), with texts (B, 77, 128)."""
    rates = torch.exp(-math.log(10000) * torch.arange(32, dtype=torch.float32) / 32)
    angles = time[:, None].float() * rates
    waves = torch.cat([angles.cos(), angles.sin()], -1)
    embedded = w.linear("time_embedding.linear_2", F.silu(w.linear("time_embedding.linear_1", waves)))

    x = w.conv("conv_in", x)
    kept = [x]
    for level in range(3):
        block = f"down_blocks.{level}"
        x = _layer(w, block, 0, x, embedded, text)
        kept.append(x)
        if f"{block}.downsamplers.0.conv" in w:
            x = w.conv(f"{block}.downsamplers.0.conv", x, stride=2)
            kept.append(x)
    x = _layer(w, "mid_block", 0, x, embedded, text)
    x = _resnet(w, "mid_block.resnets.1", x, embedded)
    for level in range(3):
        block = f"up_blocks.{level}"
        for number in range(2):
            x = _layer(w, block, number, torch.cat([x, kept.pop()], 1), embedded, text)
        if f"{block}.upsamplers.0.conv" in w:
            x = w.conv(f"{block}.upsamplers.0.conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return w.conv("conv_out", F.silu(w.group_norm("conv_norm_out", x)))


def _layer(w: Weights, block: str, number: int, x: Tensor, embedded: Tensor, text: Tensor) -> Tensor:
    """A residual block, and attention where the block has it."""
    x = _resnet(w, f"{block}.resnets.{number}", x, embedded)
    attention = f"{block}.attentions.{number}"
    return _transformer(w, attention, x, text) if f"{attention}.proj_in" in w else x


def _resnet(w: Weights, name: str, x: Tensor, embedded: Tensor) -> Tensor:
    h = w.conv(f"{name}.conv1", F.silu(w.group_norm(f"{name}.norm1", x)))
    h = h + w.linear(f"{name}.time_emb_proj", F.silu(embedded))[:, :, None, None]
    h = w.conv(f"{name}.conv2", F.silu(w.group_norm(f"{name}.norm2", h)))
    return (w.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut" in w else x) + h


def _transformer(w: Weights, name: str, x: Tensor, text: Tensor) -> Tensor:
    height, block = x.shape[2], f"{name}.transformer_blocks.0"
    h = w.conv(f"{name}.proj_in", w.group_norm(f"{name}.norm", x, 1e-6)).permute(0, 2, 3, 1).flatten(1, 2)
    for number, context in ((1, None), (2, text)):
        attention = f"{block}.attn{number}"
        layers = [f"{attention}.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")]
        normed = w.layer_norm(f"{block}.norm{number}", h)
        h = w.attention(layers, normed, normed if context is None else context) + h
    value, gate = w.linear(f"{block}.ff.net.0.proj", w.layer_norm(f"{block}.norm3", h)).chunk(2, -1)
    h = w.linear(f"{block}.ff.net.2", value * F.gelu(gate)) + h
    h = h.unflatten(1, (height, -1)).permute(0, 3, 1, 2).contiguous()
    return w.conv(f"{name}.proj_out", h) + x


# --- texts ---


def encode_tokens(w: Weights, ids: Tensor) -> Tensor:
    """The text encoder's last layer, (P, 77, 128), of token numbers (P, 77)."""
    x = w.tensors["embeddings.token_embedding.weight"][ids] + w.tensors["embeddings.position_embedding.weight"]
    for number in range(2):
        layer = f"encoder.layers.{number}"
        layers = [f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
        normed = w.layer_norm(f"{layer}.layer_norm1", x)
        x = x + w.attention(layers, normed, normed, causal=True)
        h = w.linear(f"{layer}.mlp.fc1", w.layer_norm(f"{layer}.layer_norm2", x))
        x = x + w.linear(f"{layer}.mlp.fc2", h * torch.sigmoid(1.702 * h))
    return w.layer_norm("final_layer_norm", x)


class BareDemo(CallableDenoiser):
    """The built-in model as a denoiser of 64x64 images, in float32 on the CPU.

    Raises:
        MissingPackage: tokenizers or safetensors is not installed.
    """

    family = "stable-diffusion"

    def __init__(self):
        unet, encoder = Weights("unet"), Weights("text_encoder")
        tokens = require("tokenizers", "diffusers").Tokenizer
        self._whole = tokens.from_file(str(WEIGHTS / "tokenizer" / "tokenizer.json"))
        cut = tokens.from_file(str(WEIGHTS / "tokenizer" / "tokenizer.json"))
        end = "<|endoftext|>"
        cut.enable_truncation(TOKENS)
        cut.enable_padding(length=TOKENS, pad_id=cut.token_to_id(end), pad_token=end)

        def encode(texts: list[str]) -> Tensor:
            with torch.inference_mode(False), torch.no_grad():
                return encode_tokens(encoder, torch.tensor([row.ids for row in cut.encode_batch(texts)]))

        weights = [*unet.tensors.values(), *encoder.tensors.values()]
        super().__init__(
            lambda x, time, text: predict_noise(unet, x, time, text),
            _alphas_cumprod(),
            empty=encode([""]),
            latent_shape=(4, 16, 16),
            encode=encode,
            fingerprint=fingerprint(weights, self.family, torch.float32, "epsilon", []),
        )

    def truncated(self, prompt: str) -> bool:
        """Whether a part of the prompt is more than the text encoder reads."""
        return len(prompt) > LONGEST or len(self._whole.encode(prompt).ids) > TOKENS


def _alphas_cumprod() -> Tensor:
    """(T,) of Stable Diffusion's schedule, as the scheduler's config says."""
    noise = json.loads((WEIGHTS / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    roots = torch.linspace(noise["beta_start"] ** 0.5, noise["beta_end"] ** 0.5, noise["num_train_timesteps"])
    return torch.cumprod(1 - roots**2, 0)
