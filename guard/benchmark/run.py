"""What was measured so far, kept in a folder as it comes, so that a stopped benchmark goes on where it was.

Prompts are measured in an order drawn by lot, 16 at a time on a noise of their own: what they are compared with is
asked once for 16 of them, and no noise falls on one kind of prompts alone, so that intervals cover the noise, too.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..combination import Combination
from ..denoiser import Denoiser
from ..errors import InputError
from ..files import write_file
from ..protocols import encoder_of
from ..run_folder import refuse
from ..signals.draws import derived_seed, draw_noise
from ..signals.rings import RINGS
from ..strict_json import read_object
from .methods import OTHERS, Measured, measure, scores_of

FILE = "run.json"
SCHEMA = "cryptomnesia/benchmark-run/1"
CHUNK = 16  # prompts that are measured and kept together
_LIMIT = 1 << 30  # bytes
_WIDTH = len(OTHERS) + RINGS  # numbers of a prompt


@dataclass
class Run:
    """The measurements of a benchmark in its folder; see `open_run`.

    Attributes:
        folder: The benchmark's folder.
        texts: The prompts.
        seed: Seed of the noise, and of the order in which prompts are measured.
        settings: What the numbers rest on, as the user gave it, and digests of the lists; plain data for JSON.
        bound: What they rest on besides, known once the model is loaded; None until then.
        rows: What was measured, in that order: the other methods' scores, then the energies.
        forward_rows: Rows of the network that these took.
        seconds: The time that these took, with encoding.
        parts: What was done beyond the measurements, by name; plain data for JSON.
    """

    folder: Path
    texts: list[str]
    seed: int
    settings: dict[str, Any]
    bound: dict[str, Any] | None
    rows: list[list[float]]
    forward_rows: int
    seconds: float
    parts: dict[str, Any]

    @property
    def total(self) -> int:
        """The number of prompts."""
        return len(self.texts)

    @property
    def done(self) -> int:
        """The number of prompts that are measured and kept."""
        return len(self.rows)

    @cached_property
    def order(self) -> list[int]:
        """The places of the prompts in the order in which they are measured, by texts and seed alone."""
        return sorted(range(self.total), key=lambda i: derived_seed(self.seed, "order", self.texts[i]))

    def bind(self, now: dict[str, Any]) -> None:
        """Keeps what the numbers rest on; raises InputError if it differs from the first time."""
        if self.bound is not None:
            refuse(self.folder, self.bound, now, "a benchmark")
        self.bound = now
        self.save()

    def steps(
        self, denoiser: Denoiser, *, draws: int, shape: tuple[int, int, int], batch_rows: int | None = None
    ) -> Iterator[int]:
        """Measures what is missing; yields the prompts done. What was yielded is on disk.

        Errors are those of `memorization_score`.
        """
        while self.done < self.total:
            started = time.monotonic()
            noise = draw_noise(denoiser, draws, derived_seed(self.seed, "prompts", self.done), shape)
            chosen = self.order[self.done : self.done + CHUNK]
            condition = encoder_of(denoiser).encode([self.texts[i] for i in chosen])
            found = measure(denoiser, condition, noise, batch_rows=batch_rows)
            self.rows += _numbers(found)
            self.forward_rows += found.forward_rows
            self.seconds += time.monotonic() - started
            self.save()
            yield self.done

    def scores(self, combination: Combination) -> dict[str, Tensor]:
        """Returns the scores (P,) float64 of `texts`, once all are measured, by method; higher = more likely memorized.

        Args:
            combination: What makes the default score, from a calibration with as many draws.
        """
        table = torch.empty(self.total, _WIDTH, dtype=torch.float64)
        table[self.order] = torch.tensor(self.rows, dtype=torch.float64)
        others = {key: table[:, i] for i, key in enumerate(OTHERS)}
        return scores_of(combination, table[:, len(OTHERS) :], others)

    def save(self) -> None:
        """Writes it all, atomically. Raises InputError where that cannot be."""
        document = {
            "schema": SCHEMA,
            "settings": self.settings,
            "bound": self.bound,
            "forward_rows": self.forward_rows,
            "seconds": self.seconds,
            "parts": self.parts,
            "rows": self.rows,
        }
        write_file(self.folder / FILE, json.dumps(document).encode(), "benchmark")


def open_run(folder: Path, texts: Sequence[str], seed: int, digests: dict[str, str]) -> Run:
    """Returns the run of a folder, begun if there is none.

    Args:
        folder: The folder.
        texts: The prompts.
        seed: Seed of the run.
        digests: Digests of the lists, by what messages call them.

    Raises:
        InputError: The folder holds one with other settings (the message tells the difference), or something odd.
    """
    path, settings = folder / FILE, {"seed": str(seed), **digests}
    if not path.exists():
        return Run(folder, list(texts), seed, settings, None, [], 0, 0.0, {})
    document = read_object(path, _LIMIT, "benchmark", "give another --out", error=InputError)
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} is no benchmark of this version ({SCHEMA}): give another --out")
    run = Run(folder, list(texts), seed, **{name: value for name, value in document.items() if name != "schema"})
    known = isinstance(run.settings, dict) and isinstance(run.parts, dict) and isinstance(run.bound, dict | None)
    if not known or not isinstance(run.rows, list) or not all(map(_is_row, run.rows)):
        raise InputError(f"{path} was changed, or is damaged: remove it to measure anew, or give another --out")
    refuse(folder, run.settings, settings, "a benchmark")
    return run


def _numbers(found: Measured) -> list[list[float]]:
    columns = [found.others[key].double().unsqueeze(1) for key in OTHERS]
    return torch.cat([*columns, found.result.spectrum.double()], 1).tolist()


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == _WIDTH and all(type(v) is float and math.isfinite(v) for v in row)
