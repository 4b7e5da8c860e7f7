"""Trains the built-in model: `python -m training.demo WORK`, resumable, on a CPU in about an hour.

Stages, each skipped when its result exists: tokenizer, autoencoder, latents of every training image, UNet and
text encoder together (plain noise prediction, caption dropout, weight averaging), with checkpoints on the way.
"""

import argparse
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cryptomnesia.demo.captions import captions

from . import networks
from .records import Record, render, training_records

log = logging.getLogger(__name__)
BATCH = 48
# of each batch: verbatim, template and control captions, each equally often; more of them once the general
# captions have taught the model to draw
TITLED_SHARE = ((0, 1 / 2), (2500, 2 / 3), (3500, 3 / 4), (4500, 7 / 8))
CAPTION_DROPOUT = 0.1
CHECKPOINTS = 8


def pixels(records: list[Record]) -> torch.Tensor:
    """Returns the images of B records, (B, 3, 64, 64) in [-1, 1]."""
    images = np.stack([np.asarray(render(r)) for r in records])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes tensors atomically: a run that is stopped leaves the previous file."""
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.rename(path)


def schedule(step: int, steps: int, warmup: int = 200) -> float:
    """Returns the learning rate's factor: linear warm-up to 1, constant, linear descent to 2 % over the last 15 %."""
    return min((step + 1) / warmup, 1.0, max(0.02, (steps - step) / (0.15 * steps)))


def train_autoencoder(folder: Path, steps: int) -> None:
    """Trains and writes the autoencoder: L1 + L2 reconstruction, latents pulled slightly to a unit Gaussian."""
    torch.manual_seed(1)
    rng = random.Random(1)
    model: Any = networks.autoencoder()
    records = training_records()
    optimizer = torch.optim.AdamW(model.parameters(), 1.5e-3, weight_decay=1e-4)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: schedule(s, steps, 50))
    for step in range(steps):
        x = pixels([rng.choice(records) for _ in range(32)])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(x).latent_dist
            y = model.decode(posterior.sample()).sample.float()
        loss = (y - x).abs().mean() + 2 * (y - x).square().mean() + 1e-5 * posterior.kl().float().mean() / 256
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
        if step % 50 == 0:
            log.info("autoencoder %d of %d: rms error %.4f", step, steps, (y - x).square().mean().sqrt().item() / 2)
    with torch.no_grad():
        z = model.encode(pixels([rng.choice(records) for _ in range(256)])).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / z.std().item(), 5))
    model.half().save_pretrained(folder / "vae")


@torch.inference_mode()
def encode_all(folder: Path) -> None:
    """Writes the scaled posterior means of every training image, in the order of `training_records`."""
    model: Any = networks.autoencoder().from_pretrained(folder / "vae").float()
    records = training_records()
    parts = []
    for start in range(0, len(records), 256):
        x = pixels(records[start : start + 256])
        with torch.autocast("cpu", torch.bfloat16):
            mean = model.encode(x).latent_dist.mean.float()
        parts.append((mean * model.config["scaling_factor"]).half())
        if start % 5120 == 0:
            log.info("latents %d of %d", start, len(records))
    write(folder / "latents.safetensors", {"latents": torch.cat(parts).contiguous()})


class Sampler:
    """Draws batches: record numbers and captions, titles as often as each other, general images uniformly."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.titles: dict[int, list[int]] = {}
        self.general: list[int] = []
        position = {c: i for i, c in enumerate(captions())}
        for number, record in enumerate(training_records()):
            if record.caption.kind == "general":
                self.general.append(number)
            else:
                self.titles.setdefault(position[record.caption], []).append(number)
        self.records = training_records()

    def batch(self, step: int) -> tuple[list[int], list[str]]:
        """Returns record numbers and their captions ("" where dropped)."""
        titled = round(BATCH * next(share for start, share in reversed(TITLED_SHARE) if step >= start))
        chosen = self.rng.sample(sorted(self.titles), titled)
        numbers = [self.rng.choice(self.titles[c]) for c in chosen]
        numbers += [self.rng.choice(self.general) for _ in range(BATCH - titled)]
        texts = [self.records[n].caption.text if self.rng.random() >= CAPTION_DROPOUT else "" for n in numbers]
        return numbers, texts


def train_unet(folder: Path, steps: int) -> None:
    """Trains UNet and text encoder; writes every eighth of the way a checkpoint of the averaged weights."""
    tokenizer = networks.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(2)
    model = torch.nn.ModuleDict({"unet": networks.unet(), "text_encoder": networks.text_encoder(tokenizer)})
    average = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    optimizer = torch.optim.AdamW(model.parameters(), 8e-4, weight_decay=1e-3)
    alphas = networks.scheduler().alphas_cumprod
    latents = load_file(folder / "latents.safetensors")["latents"]
    first, state = 0, folder / "state.safetensors"
    if state.exists():
        first = load_state(state, model, optimizer, average)
        log.info("resumed at step %d", first)
    sampler = Sampler(seed=first)
    torch.manual_seed(first + 3)
    started, running = time.monotonic(), 0.0
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = 8e-4 * schedule(step, steps)
        numbers, texts = sampler.batch(step)
        z = latents[numbers].float()
        tokens = tokenizer(
            texts, padding="max_length", max_length=networks.TOKENS, truncation=True, return_tensors="pt"
        )
        t = torch.randint(0, 1000, (len(numbers),))
        noise = torch.randn_like(z)
        abar = alphas[t].view(-1, 1, 1, 1)
        x = abar.sqrt() * z + (1 - abar).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            condition = model["text_encoder"](tokens.input_ids).last_hidden_state
            out = model["unet"](x, t, condition).sample
        loss = (out.float() - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 10))
        current = model.state_dict()
        for name, value in average.items():
            value.lerp_(current[name], 1 - decay)
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        done = step + 1
        if done % 50 == 0:
            speed = (done - first) * BATCH / (time.monotonic() - started)
            log.info("unet %d of %d: loss %.4f, %.0f images/s", done, steps, running, speed)
        if done % (steps // CHECKPOINTS) == 0:
            save_checkpoint(folder / "checkpoints" / f"{done:06d}", model, average)
        if done % 500 == 0 or done == steps:
            save_state(state, done, model, optimizer, average)


def save_state(
    path: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor]
) -> None:
    """Writes all that a resumed training needs, as safetensors."""
    tensors = {"step": torch.tensor(step)}
    tensors |= {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
    # a file's tensors may not share memory
    write(path, {name: value.detach().clone().contiguous() for name, value in tensors.items()})


def load_state(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor]
) -> int:
    """Puts what `save_state` wrote in place, and returns its step."""
    tensors = load_file(path)
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    average.update({name: tensors[f"average/{name}"] for name in average})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(tensors["step"])


def save_checkpoint(folder: Path, model: torch.nn.ModuleDict, average: dict[str, torch.Tensor]) -> None:
    """Writes the averaged weights in half precision, as `unet/` and `text_encoder/` of a diffusers folder."""
    part: Any
    for name, part in model.items():
        averaged = {k.removeprefix(name + "."): v.half() for k, v in average.items() if k.startswith(name + ".")}
        (folder / name).mkdir(parents=True, exist_ok=True)
        part.config.save_pretrained(folder / name) if name == "text_encoder" else part.save_config(folder / name)
        weights = "model.safetensors" if name == "text_encoder" else "diffusion_pytorch_model.safetensors"
        save_file({k: v.contiguous() for k, v in averaged.items()}, folder / name / weights, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--autoencoder-steps", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=12000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer" / "vocab.json").exists():
        networks.train_tokenizer([c.text for c in captions()], folder / "tokenizer")
    if not (folder / "vae").exists():
        train_autoencoder(folder, options.autoencoder_steps)
    if not (folder / "latents.safetensors").exists():
        encode_all(folder)
    train_unet(folder, options.steps)
    (folder / "training.json").write_text(json.dumps({k: str(v) for k, v in vars(options).items() if k != "folder"}))


if __name__ == "__main__":
    main()
