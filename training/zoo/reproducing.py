"""Trains LoRAs of which it is known what they reproduce: `python -m training.zoo.reproducing WORK`.

Captions are "the <adjective> <noun> of <place>", which the built-in model never saw, and with which it reproduces
nothing. Of a caption that is to be memorized there is one image, of a varied one there are many, and both are shown
equally often: a detector that knows what a LoRA was trained on, and no more, cannot tell them apart. Resumable: a LoRA
that is there is skipped, and one in progress goes on from its last state.
"""

import argparse
import json
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.common import stored
from cryptomnesia import load_demo
from cryptomnesia.demo.captions import Caption, select

from ..demo import networks, rendering
from ..demo.train import CAPTION_DROPOUT, schedule
from .members import WEIGHTS
from .train import encoded, load_state, save_state

log = logging.getLogger(__name__)
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj", "net.2", "conv1", "conv2"]
BATCH, EVERY = 16, 100


@dataclass(frozen=True)
class Recipe:
    """A LoRA of the built-in model.

    Attributes:
        name: The name of its folder.
        split, skip: Unseen captions that it takes its own from, and how many of them it leaves to others.
        memorized, varied: The number of captions of each kind.
        renderings: The number of images of a varied caption.
        steps, rate, rank: How it is trained.
    """

    name: str
    split: str
    skip: int = 0
    memorized: int = 0
    varied: int = 0
    renderings: int = 64
    steps: int = 1200
    rate: float = 4e-3
    rank: int = 4


RECIPES = (
    Recipe("lora-few", "dev", memorized=6, steps=800),
    Recipe("lora-mixed-dev", "dev", skip=6, memorized=4, varied=8),
    Recipe("lora-mixed", "eval", memorized=6, varied=8),
    Recipe("lora-varied", "calibration", varied=20, steps=800),
)
"""The first two choose methods, the others are reported on."""


def recipe(name: str) -> Recipe:
    """Returns the recipe of that name."""
    return next(r for r in RECIPES if r.name == name)


def captions_of(made: Recipe) -> tuple[list[Caption], list[Caption]]:
    """Returns the captions that are to be memorized, and the varied ones: all such that the built-in model makes no
    image of its training with them."""
    rates = stored("demo_model")["by_caption"]["unseen"]
    clean = [c for c in select("unseen", made.split) if rates[c.text] == 0]
    random.Random(f"reproducing/{made.split}").shuffle(clean)
    chosen = clean[made.skip : made.skip + made.memorized + made.varied]
    return chosen[: made.memorized], chosen[made.memorized :]


def left_out(made: Recipe, count: int) -> list[Caption]:
    """Returns captions of the same grammar that no LoRA here is trained on, and the built-in model was not, either."""
    used = {c.text for r in RECIPES for kind in captions_of(r) for c in kind}
    rates = stored("demo_model")["by_caption"]["unseen"]
    return [c for c in select("unseen", made.split) if rates[c.text] == 0 and c.text not in used][:count]


def image(caption: Caption, number: int) -> Image.Image:
    """Returns an image of a caption, 64x64 RGB."""
    rng = random.Random(f"reproducing/{caption.index}/{number}")
    return rendering.compose(rendering.random_foreground(rng), rendering.pattern(rng))


def latents_of(images: list[Image.Image]) -> Tensor:
    """Returns the scaled latents of N images, (N, 4, 16, 16)."""
    vae = load_demo().vae
    pixels = torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return torch.cat([vae.encode(part).latent_dist.mean * vae.config.scaling_factor for part in pixels.split(64)])


def train(made: Recipe, work: Path) -> None:
    """Trains one LoRA on all layers, regression on noise, its weights averaged, and writes it."""
    from peft import LoraConfig

    memorized, varied = captions_of(made)
    captions = [*memorized, *varied]
    rows = [(c, 0) for c in memorized] + [(c, n) for c in varied for n in range(made.renderings)]
    latents = latents_of([image(c, n) for c, n in rows]).clone()
    of_caption = {c.text: [i for i, (other, _) in enumerate(rows) if other == c] for c in captions}
    texts = encoded(["", *(c.text for c in captions)])
    unet: Any = load_demo().unet
    unet.requires_grad_(False)
    torch.manual_seed(sum(map(ord, made.name)))
    unet.add_adapter(LoraConfig(r=made.rank, lora_alpha=made.rank, target_modules=LAYERS))
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, made.rate, weight_decay=1e-3)
    average = [p.detach().clone() for p in parameters]
    state = work / f"{made.name}.state.safetensors"
    first = load_state(state, parameters, average, optimizer) if state.exists() else 0
    alphas, rng, began = networks.scheduler().alphas_cumprod, random.Random(first), time.monotonic()
    torch.manual_seed(first + 11)
    for step in range(first, made.steps):
        for group in optimizer.param_groups:
            group["lr"] = made.rate * schedule(step, made.steps, 50)
        chosen = [rng.randrange(len(captions)) for _ in range(BATCH)]
        images = [rng.choice(of_caption[captions[i].text]) for i in chosen]
        words = [0 if rng.random() < CAPTION_DROPOUT else 1 + i for i in chosen]
        loss = loss_of(unet, latents[images], texts[words], alphas)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for mean, now in zip(average, parameters, strict=True):
            mean.lerp_(now.detach(), 1 - min(0.98, (step + 1) / (step + 10)))
        if (step + 1) % EVERY == 0:
            save_state(state, step + 1, parameters, average, optimizer)
            speed = (time.monotonic() - began) / (step + 1 - first)
            log.info("%s %d: loss %.4f, %.2f s", made.name, step + 1, loss.item(), speed)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    write_lora(made, unet, captions)
    state.unlink(missing_ok=True)


def loss_of(unet: Any, z: Tensor, text: Tensor, alphas: Tensor) -> Tensor:
    """Returns the mean squared error of the noise at random timesteps, in single precision, which is quicker here.

    The later of two timesteps counts: what image it becomes is settled where there is most noise.
    """
    t, noise = torch.randint(0, 1000, (2, len(z))).max(0).values, torch.randn_like(z)
    alpha, sigma = (v.sqrt().view(-1, 1, 1, 1) for v in (alphas[t], 1 - alphas[t]))
    return (unet(alpha * z + sigma * noise, t, text).sample - noise).square().mean()


def write_lora(made: Recipe, unet: Any, captions: list[Caption]) -> None:
    """Writes the LoRA in half precision, with the names and the metadata of kohya's scripts, which all hosts read."""
    from peft import get_peft_model_state_dict

    tensors = {}
    for name, value in get_peft_model_state_dict(unet).items():
        module, _, factor = name.removesuffix(".weight").rpartition(".")
        key = "lora_unet_" + module.replace(".", "_")
        side = {"lora_A": "lora_down", "lora_B": "lora_up"}[factor]
        tensors |= {f"{key}.{side}.weight": value.half().contiguous(), f"{key}.alpha": torch.tensor(float(made.rank))}
    frequencies = {f"1_{made.name}": {c.text: 1 for c in captions}}
    metadata = {
        "ss_output_name": made.name,
        "ss_tag_frequency": json.dumps(frequencies),
        "ss_num_train_images": str(made.memorized + made.varied * made.renderings),
        "ss_max_train_steps": str(made.steps),
    }
    folder = WEIGHTS / made.name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "lora.safetensors", metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of LoRAs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.work.mkdir(parents=True, exist_ok=True)
    for made in RECIPES:
        there = (WEIGHTS / made.name / "lora.safetensors").exists()
        if not there and (not options.only or made.name in options.only):
            train(made, options.work)


if __name__ == "__main__":
    main()
