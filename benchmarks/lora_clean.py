"""Does filtering a LoRA remove what it memorized? `python -m benchmarks.lora_clean --work WORK` (needs the font).

WORK is the folder of `python -m training.zoo.series WORK`. Base-Anchored Filtering (arXiv 2605.10439): singular
channels of the update that lie in the principal subspace of the base's weight are kept, others suppressed; no data is
needed. Beside it stands what anyone can do: the whole LoRA at a smaller strength. What is lost is measured by the
denoising loss on images of the style that the LoRA was to learn, which no training saw.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.demo import networks
from training.zoo import domains, lora
from training.zoo.series import EPOCHS, Run, latents_of, run_of, style_records
from training.zoo.train import encoded

from .common import arguments, generate, store, stored, table
from .lora_series import distances, looked_at, network

KEPT = (0.75, 0.5, 0.25)  # shares of channels
STRENGTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
ENERGY = 0.9  # of the base's weight that its principal subspace holds
HELD_OUT, TIMES = 100_000, (100, 300, 500, 700, 900)  # rendering number, timesteps
SEEDS = 2


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
    """Returns a LoRA with a share of all channels: the most aligned ones, the least aligned ones, or any.

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
        sign = -1 if choice == "least aligned" else 1
        ranks = {key: sign * found[3] for key, found in channels.items()}
    limit = torch.cat(list(ranks.values())).quantile(1 - kept)
    result = dict(tensors)
    for key, (left, values, right, _) in channels.items():
        own = ranks[key].quantile(1 - kept) if choice == "aligned within layers" else limit
        root = (values * (ranks[key] >= own)).sqrt()
        for part, factor in (("up", left * root), ("down", root[:, None] * right)):
            shape = tensors[f"{key}.lora_{part}.weight"].shape
            result[f"{key}.lora_{part}.weight"] = factor.reshape(shape)
    return result


CHOICES = ("aligned", "aligned within layers", "any", "least aligned")


def style_loss(unet: Any, run: Run, latents: Tensor, texts: Tensor) -> float:
    """Returns the mean squared error of the noise on images of the style, (B, 4, 16, 16), on fixed noise and times."""
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


def measure(run: Run, work: Path, limit: float) -> list[dict[str, Any]]:
    """Returns reproduction and loss of every variant of a run's last LoRA."""
    tensors = load_file(work / run.name / f"{EPOCHS:02d}.safetensors")
    records, rows = style_records(run.split, HELD_OUT), []
    pictures = np.stack([np.asarray(domains.render(domains.ARTIST, record)) for record in records])
    pipe = network(None)
    latents, texts = latents_of(pipe.vae, pictures), encoded([record.caption.text for record in records])
    for way, amount, changed, strength in variants(pipe.unet, tensors):
        pipe = network(None)
        lora.merge(pipe.unet, changed, strength)
        near = distances(run, generate(pipe, [c.text for c in looked_at(run)], SEEDS))
        reproduced, lost = float((near < limit).double().mean()), style_loss(pipe.unet, run, latents, texts)
        rows.append(
            {"way": way, "amount": amount, "reproduced": reproduced, "distance": float(near.mean()), "style_loss": lost}
        )
        print(run.name, *rows[-1].values(), flush=True)
    none, whole = (next(row["style_loss"] for row in rows if row["way"] == way) for way in ("none", "whole"))
    for row in rows:
        row["style_kept"] = (none - row["style_loss"]) / (none - whole)
    return rows


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True}, runs={"nargs": "+", "default": ["style"]})
    torch.set_num_threads(1)
    limit = stored("demo_model")["limits"]["verbatim"]
    found = {name: measure(run_of(name), options.work, limit) for name in options.runs}
    for name, rows in found.items():
        print(name)
        table(["way", "amount", "reproduced", "distance", "loss", "style kept"], [list(row.values()) for row in rows])
    store("lora_clean", {"energy": ENERGY, "seeds": SEEDS, "limit": limit, "runs": found})


if __name__ == "__main__":
    main()
