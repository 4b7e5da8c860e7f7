"""What LoRAs do while they are trained, epoch by epoch: `python -m benchmarks.lora_series WORK` (needs the font).

WORK is the folder of `python -m training.zoo.series WORK`. For each run and epoch it keeps, in `WORK/measured`, how far
generations of its captions are from what they were trained on, and how well the network denoises images that it was
trained on, and others. `lora_monitor` and `lora_clean` read that. Resumable.
"""

import argparse
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.demo.gallery import rms
from cryptomnesia.monitoring.errors import denoising_errors
from cryptomnesia.signals.memorization import memorization_score
from training.zoo import lora
from training.zoo.series import EPOCH, EPOCHS, RUNS, Run, images, latents_of, strangers

from .common import generate

log = logging.getLogger(__name__)
SEEDS, MOST = 2, 8  # generations of a caption, and captions that are looked at
FRACTIONS, DRAWS, SEED = (0.5, 0.7, 0.85), 4, 0
EVERYDAY = 100  # captions whose guidance that of the trained ones is compared with, once
HELD_OUT = 40  # captions of the same grammar, each with an image that no training saw
SEEN_ONCE = 7  # the step whose images stand for those of a run that sees each once
ALL = np.ones((1, 64, 64), bool)


def epochs() -> list[int]:
    """Returns the epochs of a run that are looked at; 0 is before its training."""
    return list(range(0, EPOCHS + 1, 2))


def sampled(run: Run) -> list[int]:
    """Returns the epochs whose images are looked at, too: all of those where reproduction is to be expected."""
    return epochs() if run.images == "few" else [0, 8, EPOCHS]


def network(path: Path | None, strength: float = 1.0) -> Any:
    """Returns the built-in model with a LoRA file's updates merged, or without any; the same object each time."""
    pipe, own = _base()
    pipe.unet.load_state_dict(own)
    if path is not None:
        lora.merge(pipe.unet, load_file(path), strength)
    return pipe


@cache
def _base() -> tuple[Any, dict[str, Tensor]]:
    pipe = load_demo()
    return pipe, {name: value.clone() for name, value in pipe.unet.state_dict().items()}


def held_out(run: Run) -> list[Caption]:
    """Returns captions of the run's own grammar that it is not trained on."""
    own = set(run.captions)
    splits = (run.split, "eval" if run.split == "dev" else "dev")
    return [c for split in splits for c in strangers(split) if c not in own][:HELD_OUT]


def looked_at(run: Run) -> list[Caption]:
    """Returns the captions of a run that images are made of."""
    return run.captions[:MOST]


@cache
def trained_on(run: Run, caption: Caption) -> NDArray[np.uint8]:
    """Returns the images of a caption that the run was trained on, (N, 64, 64, 3)."""
    numbers = range(1, EPOCHS * EPOCH + 1) if run.images == "varied" else range(1)
    return np.concatenate([images([caption], number) for number in numbers])


def distances(run: Run, made: NDArray[np.uint8]) -> Tensor:
    """Returns (P, seeds): from each generation to the closest training image of its caption, by root mean square."""
    rows = []
    for caption, ones in zip(looked_at(run), made, strict=True):
        originals = trained_on(run, caption)
        rows.append(rms(ones, originals, np.repeat(ALL, len(originals), 0)).min(1))
    return torch.from_numpy(np.stack(rows))


@cache
def pairs(run: Run) -> tuple[list[str], Tensor, int]:
    """Returns captions and latents (P, 4, 16, 16), first the trained ones, and how many these are."""
    trained, others = run.captions, held_out(run)
    seen = images(trained, SEEN_ONCE if run.images == "varied" else 0)
    latents = latents_of(network(None).vae, np.concatenate([seen, images(others)]))
    return [c.text for c in (*trained, *others)], latents, len(trained)


def measure(run: Run, epoch: int, work: Path) -> None:
    """Measures one epoch of a run, and keeps it."""
    kept = work / "measured" / f"{run.name}-{epoch:02d}.safetensors"
    if kept.exists():
        return
    texts, latents, count = pairs(run)
    pipe = network(work / run.name / f"{epoch:02d}.safetensors" if epoch else None)
    denoiser: Any = to_denoiser(pipe)
    condition = denoiser.encode(texts)
    errors = [
        denoising_errors(denoiser, condition, latents, fraction=fraction, draws=DRAWS, seed=SEED)
        for fraction in FRACTIONS
    ]
    found = {"trained": torch.stack([e[:count] for e in errors]), "others": torch.stack([e[count:] for e in errors])}
    if epoch in sampled(run):
        found["distances"] = distances(run, generate(pipe, [c.text for c in looked_at(run)], SEEDS))
    if run.images == "few" and epoch == EPOCHS:
        for name, captions in (("trained", run.captions), ("everyday", select("general", "calibration")[:EVERYDAY])):
            score = memorization_score(
                denoiser, denoiser.encode([c.text for c in captions]), seed=SEED, alignment=False
            )
            found[f"guidance_{name}"] = score.spectrum
    kept.parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in found.items()}, kept.with_suffix(".tmp"))
    kept.with_suffix(".tmp").rename(kept)
    near = found.get("distances")
    log.info("%s %d: %s", run.name, epoch, "" if near is None else near.mean(1).numpy().round(3))


def measured(run: Run, epoch: int, work: Path) -> dict[str, Tensor]:
    """Returns what was kept of an epoch: errors of trained and other pairs, each (fractions, P), and distances
    (P, seeds)."""
    return load_file(work / "measured" / f"{run.name}-{epoch:02d}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    for run in RUNS:
        if not options.only or run.name in options.only:
            for epoch in epochs():
                measure(run, epoch, options.work)


if __name__ == "__main__":
    main()
