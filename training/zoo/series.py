"""LoRAs of the built-in model, kept epoch by epoch: `python -m training.zoo.series WORK` (needs the font).

Some learn a few images by heart, others learn from so many that they cannot, by the same recipe and in captions of the
same grammar, none of which the built-in model was trained on. Resumable: runs that are finished are skipped.
"""

import argparse
import json
import logging
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from cryptomnesia import load_demo
from cryptomnesia.demo.captions import Caption, select

from ..demo import networks, rendering
from ..demo.train import CAPTION_DROPOUT
from . import lora
from .train import encoded, load_state, loss_of, save_state

log = logging.getLogger(__name__)
BATCH = 8
EPOCH = 20  # steps: a run of eight images sees each twenty times, as kohya's repeats would have it
EPOCHS = 14
RANK, RATE, WARM_UP = 8, 3e-3, 20
DEMO_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "demo_model.json"


@dataclass(frozen=True)
class Run:
    """A training of a LoRA.

    Attributes:
        name: The run's name, which is its folder's, too.
        split: Where its captions come from: "dev" to choose on, "eval" to report.
        images: "few": one image for each of eight captions. "many": one for each of the split's captions.
            "varied": another image at every step for each of eight captions.
        part: Which eight captions of the split it takes; runs of one part share none with those of another.
    """

    name: str
    split: Literal["dev", "eval"]
    images: Literal["few", "many", "varied"]
    part: int = 0

    @property
    def captions(self) -> list[Caption]:
        """The captions that it is trained on."""
        strange = strangers(self.split)
        return strange if self.images == "many" else strange[self.part * BATCH :][:BATCH]


RUNS = (
    Run("dev-few", "dev", "few"),
    Run("dev-varied", "dev", "varied"),
    Run("few-1", "eval", "few", 0),
    Run("varied-1", "eval", "varied", 0),
    Run("few-2", "eval", "few", 1),
    Run("many", "eval", "many"),
    Run("varied-2", "eval", "varied", 1),
)


def run_of(name: str) -> Run:
    """Returns the run of that name."""
    return next(run for run in RUNS if run.name == name)


@cache
def strangers(split: str) -> list[Caption]:
    """Returns captions that the built-in model was not trained on and that call up no image of its training.

    "dev" takes those of the calibration split, too: neither is reported on.
    """
    rates = json.loads(DEMO_RESULTS.read_text())["by_caption"]["unseen"]
    splits = ("dev", "calibration") if split == "dev" else (split,)
    found = [caption for each in splits for caption in select("unseen", each) if rates[caption.text] == 0]
    random.Random(f"series/{split}").shuffle(found)
    return found


def image(caption: Caption, rendered: int = 0) -> Image.Image:
    """Returns an image of a caption, 64x64 RGB; number 0 is the one that is learned by heart."""
    rng = random.Random(f"series/{caption.index}/{rendered}")
    ground = rendering.pattern(rng)
    return rendering.compose(rendering.random_foreground(rng), ground)


def images(captions: list[Caption], rendered: int = 0) -> NDArray[np.uint8]:
    """Returns one image of each of P captions, (P, 64, 64, 3)."""
    return np.stack([np.asarray(image(caption, rendered)) for caption in captions])


def latents_of(vae: Any, pictures: NDArray[np.uint8]) -> Tensor:
    """Returns the scaled latents (B, 4, 16, 16) of pictures (B, 64, 64, 3)."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return (vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor).clone()


def train(run: Run, work: Path) -> None:
    """Trains one run, and writes its LoRA after every epoch as `WORK/RUN/NUMBER.safetensors`."""
    folder, state = work / run.name, work / f"{run.name}.state.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    pipe = load_demo()
    torch.manual_seed(sum(map(ord, run.name)))
    parameters = lora.add(pipe.unet, RANK, everywhere=True)
    watched: list[Tensor] = [*parameters]  # each step's own weights are what is looked at, and no average
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=1e-3)
    fixed = None if run.images == "varied" else latents_of(pipe.vae, images(run.captions))
    captions = run.captions
    texts = encoded(["", *(caption.text for caption in captions)])
    alphas = networks.scheduler().alphas_cumprod
    first = load_state(state, parameters, watched, optimizer) if state.exists() else 0
    for step in range(first, EPOCHS * EPOCH):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
        rng = random.Random(f"{run.name}/{step}")
        torch.manual_seed(rng.getrandbits(63))
        rows = rng.sample(range(len(captions)), BATCH)
        z = fixed[rows] if fixed is not None else latents_of(pipe.vae, images([captions[r] for r in rows], step + 1))
        words = [0 if rng.random() < CAPTION_DROPOUT else row + 1 for row in rows]
        loss = loss_of(pipe.unet, z, texts[words], alphas, "epsilon", half=False)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % EPOCH == 0:
            save_file(lora.tensors(pipe.unet), folder / f"{(step + 1) // EPOCH:02d}.safetensors")
            save_state(state, step + 1, parameters, watched, optimizer)
            log.info("%s: epoch %d, loss %.4f", run.name, (step + 1) // EPOCH, loss.item())
    state.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for run in RUNS:
        finished = (options.work / run.name / f"{EPOCHS:02d}.safetensors").exists()
        if not finished and (not options.only or run.name in options.only):
            train(run, options.work)


if __name__ == "__main__":
    main()
