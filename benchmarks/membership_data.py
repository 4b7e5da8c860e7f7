"""Images and statistics that the benchmark of membership compares; statistics are kept, so that it can be resumed."""

import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.comparability import image_features
from cryptomnesia.demo.captions import select
from cryptomnesia.signals.gradient_norms import gradient_norms
from cryptomnesia.signals.membership import sima_mc
from cryptomnesia.signals.membership_methods import METHODS
from training.demo.records import Record, render
from training.demo.train import pixels
from training.zoo.load import load_model
from training.zoo.members import fine_tuning_records, held_out_records, member

LATER = 18  # renderings from here on were seen by no training, neither the built-in model's nor a fine-tune's
BASE_IMAGES = 200
PART = 20  # images whose gradients are measured, and kept, at a time
Configuration = tuple[tuple[int, ...], int]  # timesteps and draws
RELATIVE = "sima_relative"  # needs prompts
STATISTICS = "sima_mc, mean of statistics"


@cache
def sets(model: str) -> tuple[list[Record], list[Record], list[Record]]:
    """Images that a model was trained on, held-out twins of the same captions, and others of the same kind.

    The built-in model: general captions of the evaluation, a trained and two held-out renderings of each.
    """
    split = member(model).split
    if split is not None:
        others = [Record(caption, LATER) for caption in select("general", split)]
        return list(fine_tuning_records(split)), held_out_records(split), others
    captions = select("general", "eval")[:BASE_IMAGES]
    seen = [Record(caption, number % 16) for number, caption in enumerate(captions)]
    return seen, [Record(c, LATER) for c in captions], [Record(c, LATER + 1) for c in captions]


def pictures(records: list[Record], quality: int | None = None) -> Tensor:
    """(B, 3, 64, 64) in [0, 1], as they are or after JPEG of some quality."""
    if quality is None:
        return (pixels(records) + 1) / 2
    found = []
    for record in records:
        file = io.BytesIO()
        render(record).save(file, "JPEG", quality=quality)
        found.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255)
    return torch.stack(found)


def features(records: list[Record], quality: int | None = None) -> NDArray[np.float64]:
    """Plain features of their images."""
    return np.array([image_features(image[None]) for image in pictures(records, quality)])


class Model:
    """A model of the zoo, and statistics under it, which are kept in a folder."""

    def __init__(self, name: str, work: Path):
        self.name, self.work = name, work
        self.loaded: Any = None
        self.encoded: dict[str, tuple[Tensor, Any]] = {}

    @property
    def denoiser(self) -> Any:
        if self.loaded is None:
            self.loaded = to_denoiser(load_model(self.name))
        return self.loaded

    def statistic(
        self,
        method: str,
        times: tuple[int, ...],
        draws: int,
        prompted: bool,
        records: list[Record],
        quality: int | None = None,
    ) -> NDArray[np.float64]:
        """(B,) smaller = more member-like: the log of sums of powers, the mean over timesteps."""
        what = (self.name, method, times, draws, prompted, [(r.caption.text, r.rendering) for r in records], quality)
        kept = self.work / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:24]}.npy"
        if kept.exists():
            return np.load(kept)
        z, prompts = self._encoded(records, quality)
        condition = prompts if prompted else None
        if method == STATISTICS:
            values = sima_mc(self.denoiser, z, times, condition, draws=draws, average="statistics")
        else:
            values = METHODS[method](self.denoiser, z, times, condition, draws, 0)
        positive = method == STATISTICS or METHODS[method].positive
        found = (values.double().log() if positive else values.double()).mean(0).numpy()
        np.save(kept, found)
        return found

    def gradients(
        self, times: tuple[float, ...], draws: int, prompted: bool, records: list[Record]
    ) -> NDArray[np.float64]:
        """(B, L) log norms of each layer's gradient."""
        parts = []
        for start in range(0, len(records), PART):
            some = records[start : start + PART]
            kept = self._file("gradients", times, draws, prompted, some)
            if not kept.exists():
                z, prompts = self._encoded(some, None)
                norms = gradient_norms(self.denoiser, z, times, prompts if prompted else None, draws=draws)
                np.save(kept, norms.numpy())
            parts.append(np.load(kept))
        return np.concatenate(parts)

    def _file(self, what: str, times: tuple[float, ...], draws: int, prompted: bool, records: list[Record]) -> Path:
        about = (self.name, what, times, draws, prompted, [(r.caption.text, r.rendering) for r in records])
        return self.work / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.npy"

    def _encoded(self, records: list[Record], quality: int | None) -> tuple[Tensor, Any]:
        """Latents and prompts."""
        key = repr((records, quality))
        if key not in self.encoded:
            z = torch.cat([self.denoiser.encode_image(part) for part in pictures(records, quality).split(50)])
            self.encoded[key] = z, self.denoiser.encode([record.caption.text for record in records])
        return self.encoded[key]

    def rows(self, method: str, times: tuple[int, ...], draws: int) -> int:
        """Rows of the network per image."""
        return METHODS["sima_mc" if method == STATISTICS else method].rows(self.denoiser, times, draws)


def configurations(rows: int) -> dict[str, list[Configuration]]:
    """Timesteps and draws of each method that take at most that many rows per image (SecMI: steps of 10 up to t)."""
    levels = (60, 100, 140, 200, 300)
    wide = ((20, 40, 60, 80), (40, 80, 140, 200), (60, 100, 140, 200, 300, 400), (20, 40, 60, 80, 100, 140, 200, 300))
    drawn: list[Configuration] = [*(((t,), rows) for t in levels), ((100, 200), rows // 2)]
    return {
        "sima_mc": drawn,
        RELATIVE: drawn,
        STATISTICS: [((t,), rows) for t in (200, 300)],
        "sima": [*(((t,), 1) for t in levels), *((times, 1) for times in wide if len(times) <= rows)],
        "loss": drawn,
        "secmi": [((t,), 1) for t in (20, 40, 60) if t // 10 + 2 <= rows],
        "pia": [*(((t,), 1) for t in (40, 100, 200)), *((times, 1) for times in wide if len(times) + 1 <= rows)],
        "pfami": [*(((t,), rows // 4) for t in (100, 300)), ((100, 300), rows // 8)],
    }
