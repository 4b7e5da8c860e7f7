"""A calibration over many prompts that can be stopped and resumed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .calibration import Calibration, check_promise, from_spectra, measure_benign, write_json


class CalibrationRun:
    """A calibration over many prompts that can be stopped and resumed.

    Args:
        denoiser: A host's model that has `encode`.
        prompts: Benign prompts.
        partial: Where measurements are kept until the end; resumed from if it fits these settings.
    """

    CHUNK = 16

    def __init__(
        self,
        denoiser: Any,
        prompts: list[str],
        *,
        draws: int,
        seed: int,
        alpha: float,
        partial: Path,
        latent_shape: tuple[int, int, int] | None = None,
    ):
        check_promise(len(prompts), alpha)  # before the long work
        self.denoiser, self.prompts, self.partial = denoiser, prompts, partial
        self.draws, self.seed, self.alpha = draws, seed, alpha
        self.shape = latent_shape or denoiser.latent_shape()
        digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
        self.key = [denoiser.fingerprint, str(denoiser.dtype), list(self.shape), draws, seed, digest]
        self.rows: list[list[float]] = []
        if partial.exists():
            try:
                saved = json.loads(partial.read_text("utf-8"))
                self.rows = saved["rows"] if saved["key"] == self.key else []
            except (ValueError, KeyError, TypeError):
                self.rows = []

    @property
    def done(self) -> int:
        """Prompts measured so far."""
        return len(self.rows)

    @property
    def total(self) -> int:
        """Prompts in all."""
        return len(self.prompts)

    def steps(self) -> Iterator[int]:
        """Measures chunk after chunk, keeping each; yields the number of prompts done."""
        while self.done < self.total:
            numbers = range(self.done, min(self.done + self.CHUNK, self.total))
            condition = self.denoiser.encode([self.prompts[i] for i in numbers])
            measured = measure_benign(self.denoiser, condition, numbers, self.draws, self.seed, self.shape)
            self.rows += measured.tolist()
            write_json(self.partial, {"key": self.key, "rows": self.rows})
            yield self.done

    def finish(self, path: Path) -> Calibration:
        """The calibration, once all prompts are measured; saved to path before the partial file is removed."""
        benign = torch.tensor(self.rows, dtype=torch.float64)
        calibration = from_spectra(
            self.denoiser, benign, draws=self.draws, seed=self.seed, alpha=self.alpha, shape=self.shape
        )
        calibration.save(path)
        self.partial.unlink(missing_ok=True)
        return calibration
