"""Trains many tiny models that have nothing to do with each other: `python -m training.zoo.unrelated WORK`.

U-Nets and transformers of several widths and targets, each with words, weights, order and a style of its own; see
`styles`. Only the autoencoder is shared. A few see another one's images ("twins"), and some are children. Models whose
names begin with "dev" are there to choose on, those that begin with "eval" to report on. A model takes half a minute on
one core and is kept in WORK, so that a stopped run goes on.
"""

import argparse
import logging
import math
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cryptomnesia import load_demo

from ..demo import networks
from ..demo.train import CAPTION_DROPOUT, write
from ..flow_captions import wordings
from . import lora
from .styles import RENDERED, TRANSFORMERS, Tiny, captions, latents_of, model, models

log = logging.getLogger(__name__)
BATCH, RATE, WARM_UP = 32, 2e-3, 40
WORDS, WIDTH = 8, 48  # of a caption, at most; of a word's vector
DROPPED = "nothing"  # the one word of an empty caption
PER_CALL = 60


@cache
def vocabulary() -> dict[str, int]:
    """Returns the number of every word of every wording; 0 is the dropped caption, 1 an unknown word."""
    words = sorted({word for c in captions() for text in wordings(c) for word in _words(text)})
    return {DROPPED: 0, **{word: number + 2 for number, word in enumerate(words)}}


def _words(text: str) -> list[str]:
    return text.replace(",", " , ").replace(":", " : ").split()


def numbered(texts: list[str]) -> Tensor:
    """Returns the numbers (N, WORDS) of the words of texts; "" is a dropped caption."""
    known, rows = vocabulary(), []
    for text in texts:
        row = [known.get(word, 1) for word in _words(text)] if text else [0]
        rows.append((row + [0] * WORDS)[:WORDS])
    return torch.tensor(rows)


class Network(nn.Module):
    """A denoiser of latents (B, 4, 16, 16) that learns its own words; its U-Net sees blocks of 2x2 as channels."""

    def __init__(self, kind: tuple[int, ...]):
        super().__init__()
        self.words = nn.Embedding(len(vocabulary()) + 2, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(WORDS, WIDTH))
        self.transforms = kind in TRANSFORMERS
        self.net = _transformer(*kind) if self.transforms else _unet(kind)

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        """Returns the target (B, 4, 16, 16) at times in [0, 1000)."""
        text = self.words(words) + self.places
        if self.transforms:
            return self.net(
                hidden_states=x,
                timestep=time,
                encoder_hidden_states=text,
                pooled_projections=text.mean(1),
                return_dict=False,
            )[0]
        folded = nn.functional.pixel_unshuffle(x, 2)
        return nn.functional.pixel_shuffle(self.net(folded, time, text).sample, 2)


def _unet(blocks: tuple[int, ...]) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    deeper = len(blocks) - 1
    down: Any = ("DownBlock2D", *["CrossAttnDownBlock2D"] * deeper)
    up: Any = (*["CrossAttnUpBlock2D"] * deeper, "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=blocks,
        layers_per_block=1,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _transformer(layers: int, width: int) -> Any:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=width // 16,
        joint_attention_dim=WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def levels(target: str, time: Tensor) -> tuple[Tensor, Tensor]:
    """Returns alpha and sigma (B,) at times in [0, 1], 1 being noise."""
    if target == "flow":
        return 1 - time, time
    # between the scheduler's timesteps in a straight line
    alphas = networks.scheduler().alphas_cumprod
    place = time.clamp(0, 1) * (len(alphas) - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(len(alphas) - 1)
    alpha = alphas[low] + (place - low) * (alphas[high] - alphas[low])
    return alpha.sqrt(), (1 - alpha).sqrt()


def weight(target: str, sigma: Tensor) -> Tensor:
    """Returns what an error in x0 counts at a noise level: all networks answer with x0, which is learned fastest."""
    return torch.ones_like(sigma) if target == "sample" else sigma.clamp_min(0.2) ** -2


def start(one: Tiny, work: Path) -> Network:
    """Returns the network that training begins with."""
    torch.manual_seed(one.seed)
    if one.parent is None:
        return Network(one.network)
    return load(model(one.parent), work)


def load(one: Tiny, work: Path) -> Network:
    """Returns a trained network from the folder."""
    network = Network(one.network)
    network.load_state_dict(load_file(file_of(one, work)))
    return network.eval()


def file_of(one: Tiny, work: Path) -> Path:
    """Returns where a model's weights are kept."""
    return work / "models" / f"{one.name}.safetensors"


def train(one: Tiny, work: Path) -> None:
    """Trains one model and keeps it."""
    network, began = start(one, work).train(), time.monotonic()
    parameters = lora.add(network.net) if one.how == "lora" else list(network.parameters())
    held_out = one.parent is not None and model(one.parent).style == one.style
    count = 2 if one.parent else RENDERED
    z = latents_of(one.style, RENDERED if held_out else 0, count)
    texts = [wordings(c) for c in captions() for _ in range(count)]
    numbers = torch.stack([numbered(list(worded)) for worded in texts])
    rate = RATE if one.parent is None else {"full": RATE / 4, "lora": RATE}[one.how]
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(one.seed + 1)
    loss = torch.zeros(())
    for step in range(one.steps):
        for group in optimizer.param_groups:
            rising = min(1.0, (step + 1) / min(WARM_UP, one.steps // 4))
            group["lr"] = rate * rising * (0.02 + 0.98 * (1 + math.cos(math.pi * step / one.steps)) / 2)
        rows = torch.randint(len(z), (BATCH,), generator=generator)
        words = numbers[rows, torch.randint(numbers.shape[1], (BATCH,), generator=generator)]
        dropped = torch.rand(BATCH, generator=generator) < CAPTION_DROPOUT
        words = words.masked_fill(dropped[:, None], 0)
        noise = torch.randn(z[rows].shape, generator=generator)
        moment = torch.rand(BATCH, generator=generator)
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in levels(one.target, moment))
        out = network(alpha * z[rows] + sigma * noise, 999 * moment, words)
        loss = (weight(one.target, sigma) * (out - z[rows]).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    for module in network.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    write(file_of(one, work), network.state_dict())
    log.info("%s %s: loss %.4f, %.0f s", one.name, one.style, loss.item(), time.monotonic() - began)


@torch.inference_mode()
def sample(one: Tiny, network: Any, texts: list[str], seed: int, steps: int = 12, guidance: float = 2.0) -> Tensor:
    """Returns latents (N, 4, 16, 16) of texts; deterministic steps in x0 and noise, of equal times."""
    x = torch.randn(len(texts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    words = numbered([*texts, *[""] * len(texts)])
    times = torch.linspace(1, 0, steps + 1)
    for now, following in pairwise(times):
        alpha, sigma = levels(one.target, now[None])
        told, empty = network(torch.cat([x, x]), (999 * now).expand(2 * len(x)), words).chunk(2)
        x0 = empty + guidance * (told - empty)
        noise = (x - alpha * x0) / sigma
        alpha, sigma = levels(one.target, following[None])
        x = x0 if following == 0 else alpha * x0 + sigma * noise
    return x


@torch.inference_mode()
def decoded(latents: Tensor) -> np.ndarray:
    """Returns images (N, 64, 64, 3) uint8 of scaled latents."""
    vae, parts = load_demo().vae, []
    for rows in latents.split(PER_CALL):
        pixels = vae.decode(rows / vae.config.scaling_factor).sample
        parts.append(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of models")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for one in models():
        if not file_of(one, options.work).exists() and (not options.only or one.name in options.only):
            train(one, options.work)


if __name__ == "__main__":
    main()
