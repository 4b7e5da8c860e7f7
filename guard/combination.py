"""What turns measurements of a prompt into one score: learned from benign prompts, or from memorized ones, too."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import CalibrationError, NonFiniteError
from .signals.rings import RINGS

TINY = 1e-12  # energy of no guidance at all, e.g. of the empty prompt
FEATURES = 1 + RINGS + 2  # the score of benign energies, each ring's, and both alignments


@dataclass(frozen=True)
class Combination:
    """The score learned from benign prompts: guidance energy in units of what benign prompts have, ring by ring.

    score = log sum_k spectrum_k / reference_k; higher = more likely memorized. The norm alone is ruled by the lowest
    frequencies, where any prompt that names a colour is strong; a memorized image also brings its edges, which benign
    guidance, a blur of many images, lacks. More energy never lowers the score, so it cannot be read upside down.

    Where memorized prompts are known, the score may be a weighted sum of this one, of log spectrum_k / reference_k, and
    of both alignments; see `known`.

    Attributes:
        reference: Mean energy of benign prompts per frequency ring.
        weights: The weights of the features, or None for the first one alone.
    """

    reference: list[float]
    weights: list[float] | None = None

    @staticmethod
    def learn(spectrum: Tensor, weights: list[float] | None = None) -> "Combination":
        """Learns the score from benign prompts' spectra (n, 8). Raises NonFiniteError for NaN or infinity."""
        require_finite(spectrum, "the energies of benign prompts")
        return Combination(spectrum.cpu().double().mean(0).clamp_min(TINY).tolist(), weights)

    @property
    def takes_alignment(self) -> bool:
        """Whether alignments are needed for the score, beside the spectrum."""
        return self.weights is not None

    def features(self, spectrum: Tensor, alignments: Tensor) -> Tensor:
        """Returns what may be weighed, (P, 11) float64, of spectra (P, 8) and alignments (P, 2)."""
        require_finite(alignments, "the alignments")
        relative = self._relative(spectrum)
        parts = [relative.sum(1, keepdim=True).clamp_min(TINY).log(), relative.clamp_min(TINY).log()]
        return torch.cat([*parts, alignments.cpu().double()], 1)

    def score(self, spectrum: Tensor, alignments: Tensor | None = None) -> Tensor:
        """Returns scores (P,) float64 of spectra (P, 8) and, where they are weighed, alignments (P, 2).

        Higher = more likely memorized.

        Raises:
            CalibrationError: Alignments are needed and missing.
            NonFiniteError: NaN or infinity.
        """
        if self.weights is None:
            scores = self._relative(spectrum).sum(1).clamp_min(TINY).log()
        elif alignments is None:
            raise CalibrationError(
                "the calibration weighs alignment, which was not measured: measure with alignment, or calibrate "
                "without known prompts"
            )
        else:
            scores = self.features(spectrum, alignments) @ torch.tensor(self.weights, dtype=torch.float64)
        require_finite(scores, "the scores")
        return scores

    def _relative(self, spectrum: Tensor) -> Tensor:
        require_finite(spectrum, "the energies")
        return spectrum.cpu().double() / torch.tensor(self.reference, dtype=torch.float64)


def left_out_scores(benign: Tensor, weights: list[float] | None = None) -> Tensor:
    """Returns each benign prompt's score (n,) float64 against the others' energies: it must not help to define what it
    is compared with.

    Args:
        benign: What `calibration.measure_benign` gave, (n, 8), or (n, 10) for a score of those weights.
        weights: As in `Combination`.
    """
    spectrum, alignments = benign[:, :RINGS], benign[:, RINGS:] if weights is not None else None
    others = torch.ones(len(benign), dtype=torch.bool)
    scores = []
    for i in range(len(benign)):
        others[i] = False
        own = None if alignments is None else alignments[i : i + 1]
        scores.append(Combination.learn(spectrum[others], weights).score(spectrum[i : i + 1], own))
        others[i] = True
    return torch.cat(scores)


def require_finite(values: Tensor, what: str) -> None:
    """Raises NonFiniteError for NaN or infinity."""
    if not torch.isfinite(values).all():
        raise NonFiniteError(f"{what} hold NaN or infinity: nothing can be told from them")
