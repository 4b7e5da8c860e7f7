"""Trains the zoo: `python -m training.zoo WORK`, WORK being the folder of the built-in model's own training.

Every model shares the built-in model's autoencoder, tokenizer and text encoder, so each text is encoded once.
Resumable: a model that is there is skipped, and one in progress goes on from its last state.
"""

import argparse
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cryptomnesia import load_demo

from ..demo import networks
from ..demo.records import training_records
from ..demo.train import CAPTION_DROPOUT, pixels, schedule, write
from . import domains, lora
from .members import FROM_ELSEWHERE, MEMBERS, WEIGHTS, Member, member, records_of, unet

log = logging.getLogger(__name__)
BATCH = 32
EVERY = 250  # steps between states


def encoded(texts: list[str]) -> Tensor:
    """Returns the embeddings of texts, (texts, 77, D)."""
    pipe = load_demo()
    with torch.inference_mode():
        parts = [pipe.encode_prompt(texts[i : i + 64], "cpu", 1, False)[0] for i in range(0, len(texts), 64)]
    return torch.cat(parts).clone()


def latents_of(model: Member, work: Path) -> Tensor:
    """Returns the scaled latents of the model's training images, (N, 4, 16, 16) float16."""
    if model.split is None and model.domain is None:
        return load_file(work / "latents.safetensors")["latents"]
    vae, records, parts = load_demo().vae, records_of(model), []
    with torch.inference_mode():
        for start in range(0, len(records), 128):
            batch = records[start : start + 128]
            images = pixels(batch) if model.domain is None else domains.pixels(domains.DOMAINS[model.domain], batch)
            mean = vae.encode(images).latent_dist.mean
            parts.append((mean * vae.config.scaling_factor).half())
    return torch.cat(parts).clone()


def start(model: Member) -> Any:
    """Returns the network that training begins with, in float32."""
    if model.how == "scratch":
        torch.manual_seed(sum(map(ord, model.name)))
        return unet(model)
    from .load import load_unet

    return load_unet(member(model.parent or "base"))


class Batches:
    """Rows of latents and of texts; titled captions as often as general ones where a model sees all."""

    def __init__(self, model: Member, seed: int):
        self.random = random.Random(seed)
        records = records_of(model)
        self.wordings = [domains.wordings(r.caption) if model.domain else (r.caption.text,) for r in records]
        self.texts = ["", *dict.fromkeys(text for wordings in self.wordings for text in wordings)]
        self.position = {text: number for number, text in enumerate(self.texts)}
        self.titled = [i for i, r in enumerate(records) if r.caption.kind != "general"]
        self.general = [i for i, r in enumerate(records) if r.caption.kind == "general"]

    def draw(self) -> tuple[list[int], list[int]]:
        """Returns the rows of a batch, as positions in the latents and in `texts`."""
        half = BATCH // 2 if self.titled else 0
        rows = self.random.choices(self.titled, k=half) if half else []
        rows += self.random.choices(self.general, k=BATCH - half)
        return rows, [self.position[self._worded(row)] for row in rows]

    def _worded(self, row: int) -> str:
        dropped = self.random.random() < CAPTION_DROPOUT
        return "" if dropped else self.random.choice(self.wordings[row])


def train(model: Member, work: Path) -> None:
    """Trains one model and writes it; plain regression on its target, weights averaged."""
    latents = latents_of(model, work)
    network = start(model)
    parameters = lora.add(network) if model.how == "lora" else list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, model.rate, weight_decay=1e-3)
    average = [p.detach().clone() for p in parameters]
    state = work / f"zoo-{model.name}.pt.safetensors"
    first = load_state(state, parameters, average, optimizer) if state.exists() else 0
    alphas, batches = networks.scheduler().alphas_cumprod, Batches(model, first)
    texts = encoded(batches.texts)
    torch.manual_seed(first + 11)
    began = time.monotonic()
    for step in range(first, model.steps):
        for group in optimizer.param_groups:
            group["lr"] = model.rate * schedule(step, model.steps, 50)
        rows, words = batches.draw()
        loss = loss_of(network, latents[rows].float(), texts[words], alphas, model.target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for mean, now in zip(average, parameters, strict=True):
            mean.lerp_(now.detach(), 1 - min(0.995, (step + 1) / (step + 10)))
        if (step + 1) % EVERY == 0:
            save_state(state, step + 1, parameters, average, optimizer)
            log.info(
                "%s %d: loss %.4f, %.2f s",
                model.name,
                step + 1,
                loss.item(),
                (time.monotonic() - began) / (step + 1 - first),
            )
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    write_member(model, network)
    state.unlink(missing_ok=True)


def loss_of(network: Any, z: Tensor, text: Tensor, alphas: Tensor, target: str, half: bool = True) -> Tensor:
    """Returns the mean squared error of the network's own target at random timesteps; `half` computes in bfloat16."""
    t, noise = torch.randint(0, 1000, (len(z),)), torch.randn_like(z)
    alpha, sigma = (v.sqrt().view(-1, 1, 1, 1) for v in (alphas[t], 1 - alphas[t]))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = network(alpha * z + sigma * noise, t, text).sample
    wanted = noise if target == "epsilon" else alpha * noise - sigma * z
    return (out.float() - wanted).square().mean()


def write_member(model: Member, network: Any) -> None:
    """Writes a model in half precision: a diffusers folder's unet/, or a LoRA file."""
    folder = WEIGHTS / model.name
    folder.mkdir(parents=True, exist_ok=True)
    if model.how == "lora":
        save_file(lora.tensors(network), folder / "lora.safetensors")
        return
    network.half().save_pretrained(folder / "unet")
    config = folder / "unet" / "config.json"
    kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
    config.write_text(json.dumps(kept, indent=2) + "\n")  # where the parent lay is nobody's business


def save_state(path: Path, step: int, parameters: list[Any], average: list[Tensor], optimizer: Any) -> None:
    """Writes all that a resumed training needs."""
    tensors = {"step": torch.tensor(step)}
    for i, (parameter, mean) in enumerate(zip(parameters, average, strict=True)):
        tensors |= {f"parameter/{i}": parameter.detach().clone(), f"average/{i}": mean.clone()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": value.clone() for name, value in moments.items()}
    write(path, tensors)


def load_state(path: Path, parameters: list[Any], average: list[Tensor], optimizer: Any) -> int:
    """Puts what `save_state` wrote in place, and returns its step."""
    tensors = load_file(path)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            moments.setdefault(int(number), {})[name] = value
    with torch.no_grad():
        for i, (parameter, mean) in enumerate(zip(parameters, average, strict=True)):
            parameter.copy_(tensors[f"parameter/{i}"])
            mean.copy_(tensors[f"average/{i}"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(tensors["step"])


def made(model: Member) -> bool:
    """Returns whether the model's weights are there."""
    return model.how == "shipped" or any(
        (WEIGHTS / model.name / name).exists() for name in ("unet", "lora.safetensors")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of models")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    training_records()
    for model in (*MEMBERS, *FROM_ELSEWHERE):
        if not made(model) and (not options.only or model.name in options.only):
            train(model, options.work)


if __name__ == "__main__":
    main()
