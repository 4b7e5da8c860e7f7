"""The ways of telling memorized prompts that are compared, all measured on the same noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..combination import Combination
from ..denoiser import Condition, Denoiser
from ..signals.memorization import AUTHOR_WEIGHTS, MemorizationResult, memorization_score


@dataclass(frozen=True)
class Method:
    """A way of telling: its key in files, its name for people, and what it is."""

    key: str
    name: str
    about: str


METHODS = (
    Method(
        "default", "default", "guidance by frequency, in units of what benign prompts have; the score that check gives"
    ),
    Method("author_compat", "authors' sum", "norm of guidance and alignment (Asthana & Belagiannis 2026)"),
    Method("iso", "iso = Wen 2024", "norm of guidance at the first step alone (Wen et al. 2024)"),
    Method("aniso", "alignment", "cosine of guidance and noise at a late step, per pixel; its direction varies"),
    Method("aniso_flat", "alignment, flattened", "the same cosine over the whole latent, as the paper's text has it"),
)
OTHERS = tuple(method.key for method in METHODS if method.key != "default")


@dataclass(frozen=True)
class Measured:
    """What was measured of P prompts.

    Attributes:
        result: Our measurement, with alignment.
        authors: The authors' sum, (P,) float32.
        forward_rows: Rows that went through the network.
    """

    result: MemorizationResult
    authors: Tensor
    forward_rows: int

    @property
    def others(self) -> dict[str, Tensor]:
        """The scores (P,) of all methods but ours, by `Method.key`."""
        ours = self.result
        return {"author_compat": self.authors, "iso": ours.iso, "aniso": ours.aniso, "aniso_flat": ours.aniso_flat}

    def scores(self, combination: Combination) -> dict[str, Tensor]:
        """Returns the scores of each method, (P,) float64, higher = more likely memorized, by `Method.key`."""
        return scores_of(combination, self.result.spectrum, self.others)


def scores_of(combination: Combination, spectrum: Tensor, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the scores of each method, (P,) float64, in the order of METHODS, by key.

    Args:
        combination: What makes a score of the energies, from a calibration.
        spectrum: The energies (P, 8).
        others: The other methods' scores (P,) by key.
    """
    alignments = torch.stack([others["aniso"], others["aniso_flat"]], 1)
    return {"default": combination.score(spectrum, alignments)} | {key: others[key].double() for key in OTHERS}


def measure(
    denoiser: Denoiser, condition: Condition | Tensor, noise: Tensor, *, batch_rows: int | None = None
) -> Measured:
    """Measures prompts for all methods with as few rows of the network as the model allows.

    Args:
        denoiser: The model.
        condition: The P prompts.
        noise: (draws, C, H, W) for all prompts, or (P, draws, C, H, W).
        batch_rows: Most rows of a call.

    Raises:
        NotApplicable, NonFiniteError, OutOfMemory: As in `memorization_score`.
    """
    ours = memorization_score(denoiser, condition, noise=noise, batch_rows=batch_rows)
    if authors_from_ours(denoiser):
        first, second = AUTHOR_WEIGHTS[denoiser.prediction_type]
        return Measured(ours, first * ours.iso + second * ours.aniso, ours.forward_rows)
    theirs = memorization_score(denoiser, condition, noise=noise, batch_rows=batch_rows, author_compat=True)
    return Measured(ours, theirs.score, ours.forward_rows + theirs.forward_rows)


def authors_from_ours(denoiser: Denoiser) -> bool:
    """Returns whether the authors' sum is of the very numbers that we measure: the same level, and noise put out."""
    theirs, ours = denoiser.levels.sampling(50)[0], denoiser.levels.pure_noise
    return denoiser.prediction_type == "epsilon" and torch.equal(theirs.time, ours.time)


def rows_per_prompt(denoiser: Denoiser, draws: int) -> tuple[int, int]:
    """Returns the rows of the network that each prompt costs on shared noise, and those that each call adds."""
    measurements = 1 if authors_from_ours(denoiser) else 2
    rows = 2 * draws * measurements  # two levels
    return (rows, rows) if denoiser.branches(denoiser.empty).shared else (2 * rows, 0)
