"""The training images as latents, and batches drawn on the device: `python -m training.latents FOLDER`.

Renders in every core (CRYPTOMNESIA_FONT names the font's file where it is not in its usual place) and encodes with the
built-in autoencoder. The built-in model's images come first, those of the sealed captions behind them.
"""

import argparse
import hashlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import Caption
from training.demo import rendering
from training.demo.records import RENDERINGS, Record, render

from .flow_captions import SEALED_COLOURS, all_captions
from .loop import write_file

log = logging.getLogger(__name__)
FILE = "latents.safetensors"
CAPTION_DROPOUT = 0.1
CHUNK = 256
PROBED = 997  # every so manieth image counts for the digest
DIGEST = "88b372e3d58c241e"  # of those: another Python, Pillow or font may draw other images


def records(captions: Sequence[Caption]) -> list[Record]:
    """Returns a record for every training image of these captions, in a fixed order."""
    return [Record(c, r) for c in captions for r in range(RENDERINGS[c.kind])]


def picture(record: Record) -> NDArray[np.uint8]:
    """Returns a record's image, (64, 64, 3) uint8; the grounds of sealed general captions have colours of their own."""
    caption = record.caption
    if caption.colour not in SEALED_COLOURS:
        return np.asarray(render(record))
    rng = random.Random(f"{caption.kind}/{caption.index}/{record.rendering + 1}")
    return np.asarray(rendering.general(caption.emoji, SEALED_COLOURS[caption.colour], rng))


def pictures(chunk: Sequence[Record]) -> NDArray[np.uint8]:
    """Returns the images of N records, (N, 64, 64, 3) uint8."""
    return np.stack([picture(r) for r in chunk])


def digest(chosen: Sequence[Record]) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of every so manieth image."""
    return hashlib.sha256(pictures(chosen[::PROBED]).tobytes()).hexdigest()[:16]


@torch.inference_mode()
def encode(chosen: Sequence[Record], device: torch.device, workers: int) -> Tensor:
    """Returns (N, 4, 16, 16) float16 on the CPU: scaled posterior means of the records' images."""
    chunks = [chosen[i : i + CHUNK] for i in range(0, len(chosen), CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        drawn = pool.map(pictures, chunks)  # forks here, before anything has touched a GPU
        vae: Any = load_demo().vae.to(device)
        scale, parts = vae.config["scaling_factor"], []
        for images in drawn:
            x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            parts.append((vae.encode(x).latent_dist.mean * scale).half().cpu())
    return torch.cat(parts)


class Batches:
    """Draws latents and rows of texts on the device: titles equally often, general images uniformly.

    Args:
        captions: Captions whose images are drawn, `latents` in the order of `records(captions)`.
        wordings: The texts of a caption, each drawn equally often.
        size: The number of rows of a batch.
        device: Where batches are drawn.

    Attributes:
        texts: Every text, the empty one last; what `draw` gives are positions in this list.
        share: The share of rows that are titles, a scalar tensor.
    """

    def __init__(
        self,
        captions: Sequence[Caption],
        latents: Tensor,
        wordings: Callable[[Caption], Sequence[str]],
        size: int,
        device: torch.device,
    ):
        trained = [c for c in captions if RENDERINGS[c.kind]]
        counts = [RENDERINGS[c.kind] for c in trained]
        if sum(counts) != len(latents):
            raise ValueError(f"{len(latents)} latents do not fit {sum(counts)} images")
        worded = [list(wordings(c)) for c in trained]
        self.texts = [text for texts in worded for text in texts] + [""]
        columns = np.lcm.reduce([len(texts) for texts in worded])
        rows, first = [], 0
        for texts in worded:
            rows.append([first + i % len(texts) for i in range(columns)])
            first += len(texts)
        self.size, self.device = size, device
        self.latents = latents.to(device)
        self.count = torch.tensor(counts, device=device)
        self.start = self.count.cumsum(0) - self.count
        self.rows = torch.tensor(rows, device=device)
        general = [c.kind == "general" for c in trained]
        self.general = torch.tensor([i for i, g in enumerate(general) if g], device=device)
        self.titles = torch.tensor([i for i, g in enumerate(general) if not g], device=device)
        self.share = torch.full((), 0.5, device=device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Returns (B, 4, 16, 16) float32 latents, and (B,) positions in `texts`."""
        titles = self.titles[self._integers(len(self.titles))]
        general = self.general[self._integers(len(self.general))]
        caption = torch.where(self._uniform() < self.share, titles, general)
        number = self.start[caption] + (self._uniform() * self.count[caption]).long()
        text = self.rows[caption, self._integers(self.rows.shape[1])]
        dropped = self._uniform() < CAPTION_DROPOUT
        return self.latents[number].float(), text.masked_fill(dropped, len(self.texts) - 1)

    def _uniform(self) -> Tensor:
        return torch.rand(self.size, device=self.device)

    def _integers(self, high: int) -> Tensor:
        return torch.randint(high, (self.size,), device=self.device)


def load(folder: Path) -> Tensor:
    """Returns the latents of every image of all captions, (N, 4, 16, 16) float16."""
    return load_file(folder / FILE)["latents"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images, drawn for a trial, repeated")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    every = records(all_captions())
    drawn = digest(every)
    log.info("digest of the images %s: %s", drawn, "as expected" if drawn == DIGEST else f"EXPECTED {DIGEST}")
    kept = every[:: round(1 / options.fraction)]
    latents = encode(kept, torch.device(options.device), options.workers)
    if len(kept) < len(every):
        latents = latents.repeat_interleave(round(1 / options.fraction), 0)[: len(every)]
    write_file(options.folder / FILE, {"latents": latents})
    log.info("%d latents, standard deviation %.3f", len(latents), latents.float().std().item())


if __name__ == "__main__":
    main()
