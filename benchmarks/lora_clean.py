"""Does filtering a LoRA remove what it memorized? `python -m benchmarks.lora_clean` (needs the font).

Base-Anchored Filtering (arXiv 2605.10439): singular channels of the update that lie in the principal subspace of the
base's weight are kept, others suppressed; no data is needed. Beside it stand channels chosen at random, and what
anyone can do: the whole LoRA at a smaller strength. The LoRA learned one image of some captions by heart, and many
images of others; what is lost is told by the denoising loss on held-out images of these. Every amount is reported.
"""

from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from cryptomnesia.demo.gallery import rms
from training.demo import networks
from training.zoo import lora
from training.zoo.members import WEIGHTS
from training.zoo.reproducing import captions_of, image, latents_of, recipe
from training.zoo.train import encoded

from .common import arguments, generate, store, stored, table
from .lora_series import ALL, network

KEPT = (0.75, 0.5, 0.25)  # shares of channels
STRENGTHS = (0.8, 0.65, 0.5, 0.35)
CHOICES = ("aligned", "aligned within layers", "any")
ENERGY = 0.9  # of the base's weight that its principal subspace holds
HELD_OUT, TIMES = 4, (100, 300, 500, 700, 900)  # images of a varied caption, timesteps
SEEDS = 3


def alignments(weight: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns an update's channels: left (out, r), singular values (r,), right (r, in), and alignments (r,) in [0, 1].

    A channel is aligned as far as its two directions lie in the spaces of the base's leading singular vectors, mean of
    both squared projections; higher = more of the base's own.

    Args:
        weight: The base's weight, (out, ...).
        up, down: The update's factors.
    """
    flat = weight.flatten(1).float()
    left, values, right = torch.linalg.svd(lora.product(up, down).flatten(1), full_matrices=False)
    rank = up.shape[1]
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    base_left, base_values, base_right = torch.linalg.svd(flat, full_matrices=False)
    held = (base_values.square().cumsum(0) / base_values.square().sum() < ENERGY).sum() + 1
    inside_left = (base_left[:, :held].T @ left).square().sum(0)
    inside_right = (base_right[:held] @ right.T).square().sum(0)
    return left, values, right, (inside_left + inside_right) / 2


def filtered(unet: Any, tensors: dict[str, Tensor], kept: float, choice: str) -> dict[str, Tensor]:
    """Returns a LoRA with a share of all channels: the most aligned ones, or any.

    "aligned within layers" keeps that share of each layer's channels, the others of all layers' together.
    """
    channels, layers = {}, {f"lora_unet_{name.replace('.', '_')}": m for name, m in unet.named_modules()}
    for key in sorted({name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}):
        up, down = (tensors[f"{key}.lora_{part}.weight"].float() for part in ("up", "down"))
        channels[key] = alignments(layers[key].weight.detach(), up, down)
    every = torch.cat([found[3] for found in channels.values()])
    if choice == "any":
        shuffled = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).float()
        parts = shuffled.split([len(found[3]) for found in channels.values()])
        ranks = dict(zip(channels, parts, strict=True))
    else:
        ranks = {key: found[3] for key, found in channels.items()}
    limit = torch.cat(list(ranks.values())).quantile(1 - kept)
    result = dict(tensors)
    for key, (left, values, right, _) in channels.items():
        own = ranks[key].quantile(1 - kept) if choice == "aligned within layers" else limit
        root = (values * (ranks[key] >= own)).sqrt()
        for part, factor in (("up", left * root), ("down", root[:, None] * right)):
            shape = tensors[f"{key}.lora_{part}.weight"].shape
            result[f"{key}.lora_{part}.weight"] = factor.reshape(shape)
    return result


def loss(unet: Any, latents: Tensor, texts: Tensor) -> float:
    """Returns the mean squared error of the noise on images (B, 4, 16, 16), on fixed noise and times."""
    alphas, total = networks.scheduler().alphas_cumprod, 0.0
    with torch.inference_mode():
        for time in TIMES:
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(time))
            alpha, sigma = alphas[time].sqrt(), (1 - alphas[time]).sqrt()
            out = unet(alpha * latents + sigma * noise, time, texts).sample
            total += (out - noise).square().mean().item()
    return total / len(TIMES)


def variants(unet: Any, tensors: dict[str, Tensor]) -> list[tuple[str, float, dict[str, Tensor], float]]:
    """Returns what is compared: (way, share kept or strength, tensors, strength)."""
    found: list[Any] = [("none", 0.0, tensors, 0.0), ("whole", 1.0, tensors, 1.0)]
    found += [("scaled", strength, tensors, strength) for strength in STRENGTHS]
    for choice in CHOICES:
        found += [(choice, kept, filtered(unet, tensors, kept, choice), 1.0) for kept in KEPT]
    return found


def measure(name: str, limit: float) -> list[dict[str, Any]]:
    """Returns reproduction, and the loss on held-out images of the varied captions, for every variant of a LoRA."""
    tensors = load_file(WEIGHTS / name / "lora.safetensors")
    made, rows = recipe(name), []
    memorized, varied = captions_of(made)
    fixed = np.stack([np.asarray(image(caption, 0)) for caption in memorized])
    held_out = [(caption, made.renderings + number) for caption in varied for number in range(HELD_OUT)]
    pipe = network(None)
    latents = latents_of([image(*pair) for pair in held_out])
    texts = encoded([caption.text for caption, _ in held_out])
    for way, amount, changed, strength in variants(pipe.unet, tensors):
        pipe = network(None)
        lora.merge(pipe.unet, changed, strength)
        made_now = generate(pipe, [c.text for c in memorized], SEEDS)
        near = np.stack([rms(ones, fixed[i : i + 1], ALL)[:, 0] for i, ones in enumerate(made_now)])
        found = {"reproduced": float((near < limit).mean()), "distance": float(near.mean())}
        rows.append({"way": way, "amount": amount, **found, "loss": loss(pipe.unet, latents, texts)})
        print(name, *rows[-1].values(), flush=True)
    none, whole = (next(row["loss"] for row in rows if row["way"] == way) for way in ("none", "whole"))
    for row in rows:
        row["learned"] = (none - row["loss"]) / (none - whole)
    return rows


def main() -> None:
    options = arguments(__doc__, loras={"nargs": "+", "default": ["lora-mixed"]})
    torch.set_num_threads(1)
    limit = stored("demo_model")["limits"]["verbatim"]
    found = {name: measure(name, limit) for name in options.loras}
    for name, rows in found.items():
        print(name)
        table([*rows[0]], [list(row.values()) for row in rows])
    store("lora_clean", {"energy": ENERGY, "seeds": SEEDS, "limit": limit, "loras": found})


if __name__ == "__main__":
    main()
