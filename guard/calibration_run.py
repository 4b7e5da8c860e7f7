"""Measuring many prompts on a model, and a calibration over them, that can be stopped and resumed."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .calibration import (
    Calibration,
    check_promise,
    from_spectra,
    level_at,
    measure_benign,
    require_words,
    write_json,
)
from .calibration_file import LIMIT
from .calibration_misfit import binding_of
from .denoiser import Denoiser
from .errors import CalibrationError
from .protocols import encoder_of
from .signals.batching import rows_per_call
from .signals.draws import DRAWS
from .signals.rings import RINGS
from .strict_json import read_json

QUICK_PROMPTS, QUICK_DRAWS = 100, 1  # as many rows as two images of 50 steps
MOST_PER_CALL = 16  # so that progress is seen, and little is lost
ONE_WAY = "known prompts and what words lead to expect are two ways to a better score: calibrate by one of them"


def extent(prompts: list[str], draws: int | None, quick: bool) -> tuple[list[str], int]:
    """Returns the prompts that are measured and the draws of each: as given, or by default.

    A quick calibration takes so many of the prompts, evenly spaced; all where there are no more.
    """
    if not quick:
        return prompts, DRAWS if draws is None else draws
    step = max(1.0, len(prompts) / QUICK_PROMPTS)
    some = [prompts[int(i * step)] for i in range(min(QUICK_PROMPTS, len(prompts)))]
    return some, QUICK_DRAWS if draws is None else draws


class MeasuringRun:
    """Measurements of many prompts, kept call by call.

    Args:
        denoiser: A model that can encode prompts.
        prompts: The prompts.
        draws, seed, time: As in `calibrate`.
        alignment: Whether both alignments are measured beside the spectrum, which doubles the rows.
        partial: Where measurements are kept; resumed from if it fits these settings.
        latent_shape: (C, H, W), by default the model's own size.

    Attributes:
        rows: What is measured so far, a list of 8 or 10 numbers per prompt; see `measure_benign`.

    Raises:
        InputError: A timestep that the model has not, or a model that cannot encode prompts.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompts: list[str],
        *,
        draws: int,
        seed: int,
        partial: Path,
        latent_shape: tuple[int, int, int] | None = None,
        time: int | None = None,
        alignment: bool = False,
    ):
        self.denoiser, self.encoder = denoiser, encoder_of(denoiser)
        self.prompts, self.partial = prompts, partial
        self.draws, self.seed, self.time, self.alignment = draws, seed, time, alignment
        level_at(denoiser, time)
        self.shape = latent_shape or denoiser.latent_shape()
        self.binding = binding_of(denoiser, self.shape, draws, time=time)
        self.digest = prompts_digest(prompts)
        self.rows: list[list[float]] = self._kept()

    @property
    def _key(self) -> dict[str, Any]:
        binding = {**self.binding._asdict(), "latent_shape": list(self.shape)}
        return {**binding, "seed": self.seed, "prompts": self.digest, "alignment": self.alignment}

    def _kept(self) -> list[list[float]]:
        """The measurements of an earlier run; none where the file is another run's, or not what this class wrote."""
        try:
            document = read_json(self.partial, LIMIT)
        except (OSError, ValueError):
            return []
        if not isinstance(document, dict) or document.get("key") != self._key:
            return []
        rows = document.get("rows")
        known = isinstance(rows, list) and len(rows) <= len(self.prompts) and all(map(self._is_row, rows))
        return rows if known else []  # type: ignore[return-value]

    @property
    def per_call(self) -> int:
        """The number of prompts that share a call of the network, and are kept together."""
        return min(MOST_PER_CALL, max(1, rows_per_call(self.denoiser, self.shape) // self._rows_each))

    @property
    def _rows_each(self) -> int:
        return (4 if self.alignment else 2) * self.draws

    @property
    def done(self) -> int:
        """The number of prompts measured so far."""
        return len(self.rows)

    @property
    def total(self) -> int:
        """The number of all prompts."""
        return len(self.prompts)

    @property
    def forward_rows(self) -> int:
        """The rows of the network that the prompts not yet measured cost; an image of 50 steps costs 100."""
        return self._rows_each * (self.total - self.done)

    def steps(self) -> Iterator[int]:
        """Measures call after call, keeping each; yields the number of prompts done."""
        while self.done < self.total:
            numbers = range(self.done, min(self.done + self.per_call, self.total))
            condition = self.encoder.encode([self.prompts[i] for i in numbers])
            measured = measure_benign(
                self.denoiser, condition, numbers, self.draws, self.seed, self.shape, self.time, self.alignment
            )
            self.rows += measured.tolist()
            write_json(self.partial, {"key": self._key, "rows": self.rows})
            yield self.done

    @property
    def measured(self) -> torch.Tensor:
        """What is measured so far, (P, 8) or (P, 10) float64."""
        return torch.tensor(self.rows, dtype=torch.float64)

    def _is_row(self, row: Any) -> bool:
        numbers = RINGS + (2 if self.alignment else 0)
        known = isinstance(row, list) and len(row) == numbers and all(type(v) is float for v in row)
        return known and all(0 <= v < math.inf for v in row[:RINGS]) and all(abs(v) <= 1.01 for v in row[RINGS:])


class CalibrationRun(MeasuringRun):
    """A calibration over many prompts that can be stopped and resumed.

    Args:
        denoiser, draws, seed, partial, latent_shape, time: As in `MeasuringRun`.
        prompts: Benign prompts.
        alpha: As in `calibrate`.
        weights: Those of a score that was learned from known prompts; see `known`.
        by_words: As in `calibrate`.

    Raises:
        InputError: Too few prompts, zero draws, odd alpha, a timestep that the model has not, a model that cannot
            encode prompts, or no text embeddings to calibrate by.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompts: list[str],
        *,
        draws: int,
        seed: int,
        alpha: float,
        partial: Path,
        latent_shape: tuple[int, int, int] | None = None,
        time: int | None = None,
        weights: list[float] | None = None,
        by_words: bool = False,
    ):
        check_promise(len(prompts), alpha, draws)  # before the long work
        self.alpha, self.weights, self.by_words = alpha, weights, by_words
        settings: dict[str, Any] = {"latent_shape": latent_shape, "time": time, "alignment": weights is not None}
        super().__init__(denoiser, prompts, draws=draws, seed=seed, partial=partial, **settings)
        if by_words:
            require_words(self.encoder.encode(prompts[:1]))

    def finished(self, path: Path) -> Calibration | None:
        """Returns the calibration that is there already, if this run would make the same; else None.

        Its promise is the one asked for, since only that hangs on alpha.
        """
        try:
            found = Calibration.load(path)
        except CalibrationError:
            return None
        same = (found.binding, found.seed, found.prompts) == (self.binding, self.seed, self.digest)
        same = same and found.combination.weights == self.weights and (found.expectation is not None) == self.by_words
        return replace(found, alpha=self.alpha) if same else None

    def finish(self, path: Path) -> Calibration:
        """Returns the calibration of all prompts, after saving it to path and removing the partial file."""
        calibration = from_spectra(
            self.denoiser,
            self.measured,
            draws=self.draws,
            seed=self.seed,
            alpha=self.alpha,
            shape=self.shape,
            prompts=self.digest,
            time=self.time,
            weights=self.weights,
            words=self._words() if self.by_words else None,
        )
        calibration.save(path)
        self.partial.unlink(missing_ok=True)
        return calibration

    def _words(self) -> torch.Tensor:
        """All prompts' mean embeddings: encoded anew, since none are kept in the partial file."""
        starts = range(0, self.total, MOST_PER_CALL)
        parts = [self.encoder.encode(self.prompts[start : start + MOST_PER_CALL]) for start in starts]
        return torch.cat([require_words(part) for part in parts])


def prompts_digest(prompts: list[str]) -> str:
    """Returns the SHA-256, in hex, by which a calibration knows the prompts that it was made of."""
    return hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
