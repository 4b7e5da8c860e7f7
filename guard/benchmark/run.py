"""What was measured so far, kept in a folder as it comes, so that a stopped benchmark goes on where it was."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..audit.manifest import refuse
from ..calibration import Combination
from ..denoiser import Denoiser
from ..errors import InputError
from ..files import write_file
from ..protocols import encoder_of
from ..signals.memorization import draw_noise
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
        texts: The prompts, in the order in which they are measured.
        settings: What the numbers rest on, as the user gave it, and digests of the lists; plain data for JSON.
        bound: What they rest on besides, known once the model is loaded; None until then.
        rows: What was measured of the first prompts: the other methods' scores, then the energies.
        forward_rows: Rows of the network that these took.
        seconds: The time that these took, with encoding.
        parts: What was done beyond the measurements, by name; plain data for JSON.
    """

    folder: Path
    texts: list[str]
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

    def bind(self, now: dict[str, Any]) -> None:
        """Keeps what the numbers rest on; raises InputError if it differs from the first time."""
        if self.bound is not None:
            refuse(self.folder, self.bound, now, "a benchmark")
        self.bound = now
        self.save()

    def steps(
        self,
        denoiser: Denoiser,
        *,
        draws: int,
        seed: int,
        shape: tuple[int, int, int],
        batch_rows: int | None = None,
    ) -> Iterator[int]:
        """Measures what is missing, all on the noise that `check` has with that seed; yields the prompts done.

        What was yielded is on disk. Errors are those of `memorization_score`.
        """
        noise = draw_noise(denoiser, draws, seed, shape)
        while self.done < self.total:
            started = time.monotonic()
            condition = encoder_of(denoiser).encode(self.texts[self.done : self.done + CHUNK])
            found = measure(denoiser, condition, noise, batch_rows=batch_rows)
            self.rows += _numbers(found)
            self.forward_rows += found.forward_rows
            self.seconds += time.monotonic() - started
            self.save()
            yield self.done

    def scores(self, combination: Combination) -> dict[str, Tensor]:
        """Returns the scores (P,) float64 of the prompts that are measured, by method; higher = more likely memorized.

        Args:
            combination: What makes the default score, from a calibration with as many draws.
        """
        table = torch.tensor(self.rows, dtype=torch.float64)
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


def open_run(folder: Path, settings: dict[str, Any], texts: Sequence[str]) -> Run:
    """Returns the run of a folder, begun if there is none.

    Raises:
        InputError: The folder holds one with other settings (the message tells the difference), or something odd.
    """
    path = folder / FILE
    if not path.exists():
        return Run(folder, list(texts), settings, None, [], 0, 0.0, {})
    document = read_object(path, _LIMIT, "benchmark", "give another --out", error=InputError)
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} is no benchmark of this version ({SCHEMA}): give another --out")
    run = Run(folder, list(texts), **{name: value for name, value in document.items() if name != "schema"})
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
