"""What LoRAs do while they are trained, epoch by epoch: `python -m benchmarks.lora_series WORK` (needs the font).

WORK is the folder of `python -m training.zoo.series WORK`. For each run and epoch it keeps, in `WORK/measured`, how far
generations of its captions are from what they were trained on, and the guidance energy of those captions and of benign
ones. `lora_monitor` and `lora_clean` read that. Resumable.
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
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.rings import ring_energy
from training.zoo import lora
from training.zoo.series import EPOCH, EPOCHS, RUNS, Run, images, strangers

from .common import generate

log = logging.getLogger(__name__)
SEEDS, MOST = 2, 8  # generations of a caption, and captions that are looked at
DRAWS, SEED = 4, 0
EVERYDAY, ALIKE = 100, 24  # benign captions of each sort
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


def benign(run: Run) -> dict[str, list[Caption]]:
    """Returns captions that the run is not trained on: everyday ones, and as many as there are of its own grammar."""
    own = set(run.captions)
    alike = [c for split in ("dev", "eval") for c in strangers(split) if c not in own]
    return {"everyday": select("general", "calibration")[:EVERYDAY], "alike": alike[:ALIKE]}


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


def energies(pipe: Any, texts: list[str]) -> Tensor:
    """Returns guidance energy per ring at one draw and at four, (2, P, 8), on the same noise for all texts."""
    denoiser: Any = to_denoiser(pipe)
    guidance, parts = Guidance(denoiser, draw_noise(denoiser, DRAWS, SEED)), []
    for start in range(0, len(texts), 16):
        vectors = guidance(denoiser.encode(texts[start : start + 16]))
        parts.append(torch.stack([ring_energy(vectors[:, :1].mean(1)), ring_energy(vectors.mean(1))]))
    return torch.cat(parts, 1).cpu()


def measure(run: Run, epoch: int, work: Path) -> None:
    """Measures one epoch of a run, and keeps it."""
    kept = work / "measured" / f"{run.name}-{epoch:02d}.safetensors"
    if kept.exists():
        return
    pipe = network(work / run.name / f"{epoch:02d}.safetensors" if epoch else None)
    sets = {"trained": run.captions, **benign(run)}
    found = {name: energies(pipe, [c.text for c in captions]) for name, captions in sets.items()}
    if epoch in sampled(run):
        found["distances"] = distances(run, generate(pipe, [c.text for c in looked_at(run)], SEEDS))
    kept.parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in found.items()}, kept.with_suffix(".tmp"))
    kept.with_suffix(".tmp").rename(kept)
    near = found.get("distances")
    log.info("%s %d: %s", run.name, epoch, "" if near is None else near.median(1).values.sort().values.numpy().round(3))


def measured(run: Run, epoch: int, work: Path) -> dict[str, Tensor]:
    """Returns what was kept of an epoch: trained, everyday, alike (each (2, P, 8)), and distances (P, seeds)."""
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
