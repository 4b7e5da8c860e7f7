"""Audits of prompts: is the model likely to reproduce training data for each of them?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import require
from ..guard import Guard
from ..protocols import encoder_of
from ..signals.draws import derived_seed, draw_noise
from ..signals.memorization import memorization_score
from ..verdict import judge
from .rows import Reject, Row
from .worker import About


@dataclass(frozen=True)
class PromptJob:
    """How to check prompts.

    Attributes:
        open_guard: Loads a guard and tells the number of draws; run by every worker.
        seed: Seed from which each prompt's private noise is derived.
        size: Height and width in pixels, by default the model's own.
        alignment: Also measure aniso, which takes part in no verdict and doubles the rows.
    """

    open_guard: Callable[[], tuple[Guard, int]]
    seed: int = 0
    size: tuple[int | None, int | None] = (None, None)
    alignment: bool = False

    kind, most_rows = "prompts", 128

    def settings(self) -> dict[str, Any]:
        """Returns what the results rest on besides files, as plain data for run.json."""
        return {"height": self.size[0], "width": self.size[1], "alignment": self.alignment}

    def open(self) -> "PromptWork":
        """Loads the guard, and returns the work.

        Raises NotApplicable where a prompt's pull has no meaning, and what open_guard raises.
        """
        guard, draws = self.open_guard()
        guard.denoiser.require_guidance()
        return PromptWork(guard, draws, self)

    def schema(self) -> Any:
        """Returns the columns of the results, a pyarrow schema. Raises MissingPackage without pyarrow."""
        arrow = require("pyarrow", "audit")
        texts, numbers = ("verdict", "model", "calibration", "seed"), ("score", "iso", "aniso", "aniso_flat", "p_value")
        fields = [("row", arrow.int64()), ("prompt", arrow.string())]
        fields += [(name, arrow.float64()) for name in numbers]
        fields += [("rows_spent", arrow.int32())]
        return arrow.schema(fields + [(name, arrow.string()) for name in texts])


@dataclass(frozen=True)
class Prompt:
    """A prompt in its row."""

    row: Row


class PromptWork:
    """Prompts on one model.

    Every prompt has noise of its own, as in a calibration, derived from its text and the seed. So its numbers depend on
    neither its place nor its company, and equal prompts get equal ones.
    """

    def __init__(self, guard: Guard, draws: int, job: PromptJob):
        self.guard, self.draws, self.job = guard, draws, job
        self.denoiser, self.encoder = guard.denoiser, encoder_of(guard.denoiser)
        self.shape = self.denoiser.latent_shape(*job.size)
        known = guard.calibration
        self.level = None if known is None else known.level(self.denoiser)
        self.alignment = job.alignment or (known is not None and known.combination.takes_alignment)
        identity, alpha = (None, None) if known is None else (known.identity, known.alpha)
        reference = None if self.denoiser.reference == "empty branch" else self.denoiser.reference
        self.about = About(self.denoiser.fingerprint, identity, alpha, draws, reference)

    def prepare(self, rows: Sequence[Row]) -> tuple[list[Prompt], list[Reject]]:
        """Returns a prompt per row, and no rejects, since nothing has to be read."""
        return [Prompt(row) for row in rows], []

    def measure(self, items: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns one record per prompt, in order, from one call of the network."""
        texts = [item.row.value for item in items]
        noise = torch.stack([prompt_noise(self.denoiser, t, self.draws, self.job.seed, self.shape) for t in texts])
        rows_each = (4 if self.alignment else 2) * self.draws
        result = memorization_score(
            self.denoiser,
            self.encoder.encode(texts),
            noise=noise,
            level=self.level,
            alignment=self.alignment,
            batch_rows=rows_each * len(texts),
        )
        count = len(texts)
        scores, p_values, verdicts = zip(*judge(result, self.guard.calibration), strict=True)
        empty = [None] * count
        columns = {
            "row": [item.row.row for item in items],
            "prompt": texts,
            "score": scores,
            "iso": result.iso.tolist(),
            "aniso": empty if result.aniso is None else result.aniso.tolist(),
            "aniso_flat": empty if result.aniso_flat is None else result.aniso_flat.tolist(),
            "p_value": p_values,
            "rows_spent": [result.forward_rows // count] * count,
            "verdict": verdicts,
            "model": [self.about.model] * count,
            "calibration": [self.about.calibration] * count,
            "seed": [str(self.job.seed)] * count,
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def prompt_noise(denoiser: Denoiser, prompt: str, draws: int, seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Returns a prompt's private noise, (draws, C, H, W), from a hash of its text and the seed."""
    return draw_noise(denoiser, draws, derived_seed(seed, "prompt", prompt), shape)
