"""What every mitigation lowers: the calibrated score of a condition, and how similar its guidance still is."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..calibration import Calibration
from ..condition import mean_text
from ..denoiser import Condition, Denoiser
from ..signals.alignment import Alignment
from ..signals.draws import draw_noise
from ..signals.guidance import Guidance
from ..signals.guidance_similarity import guidance_similarity
from ..signals.rings import ring_energy

LIMIT = 0.1  # guidance similarity above it brings the old image back, on the built-in model's development captions
QUANTILE = 0.25  # of what holds: prompts that score higher call up another training image now and then
COMFORTABLE = 0.1  # p-value; what has just left the flagged ones may still reproduce another image


@dataclass(frozen=True)
class Measure:
    """What is measured of P conditions, each (P,) float64 on the CPU.

    Attributes:
        score: The calibrated score; higher = more likely memorized.
        guidance_similarity: Pull to the original's image, in [-1, 1]; see `signals.guidance_similarity`.
        p_value: The score's conformal p-value, in (0, 1]; small = unlike benign prompts.
    """

    score: Tensor
    guidance_similarity: Tensor
    p_value: Tensor

    def __getitem__(self, row: int) -> "Measure":
        """One row of all."""
        return Measure(*(values[row : row + 1] for values in (self.score, self.guidance_similarity, self.p_value)))

    def holds(self, alpha: float) -> Tensor:
        """Returns (P,) bool: as ordinary as a benign prompt comfortably is, and not pulling to the original's image."""
        return (self.p_value > max(alpha, COMFORTABLE)) & (self.guidance_similarity <= LIMIT)


def ordinary(scores: Tensor) -> list[int]:
    """Returns which of scores (P,) are no higher than their QUANTILE.

    A prompt that calls up another training image is often not flagged, and stands out among its like.
    """
    return (scores <= scores.quantile(QUANTILE, interpolation="lower")).nonzero().flatten().tolist()


class Objective:
    """Score and guidance similarity on fixed noise draws, cheap to ask again and differentiable.

    Args:
        denoiser: The model.
        calibration: The model's calibration; gives the score's form and its p-values.
        original: The condition that was found memorized, one row.
        seed: The seed of the private noise. Another seed gives another, independent test.
        draws: The number of noise draws, by default as calibrated.
        shape: The latent's shape (C, H, W), by default the calibration's.
        noise: Takes the place of seed, draws and shape: (draws, C, H, W).

    Raises:
        NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`, which also says how memory is saved.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        calibration: Calibration,
        original: Condition,
        *,
        seed: int = 0,
        draws: int | None = None,
        shape: tuple[int, int, int] | None = None,
        noise: Tensor | None = None,
    ):
        if noise is None:
            noise = draw_noise(denoiser, draws or calibration.draws, seed, shape or calibration.latent_shape)
        self.calibration = calibration
        self.guidance = Guidance(denoiser, noise, level=calibration.level(denoiser))
        weighed = calibration.combination.takes_alignment
        self.alignment = Alignment(denoiser, noise) if weighed else None
        self._original = self.guidance(original).mean(1)
        self._original_alignments = self._alignments(original)
        self._original_words = mean_text(original)

    @property
    def before(self) -> Measure:
        """The measure of the original itself, whose guidance similarity is 1."""
        return self._measure(self._original, self._original_alignments, self._original_words)

    def __call__(self, condition: Condition, *, grad: bool = False) -> Measure:
        """Measures P conditions; with `grad`, score and guidance similarity are differentiable in their tensors."""
        guidance, alignments = self.guidance(condition, grad=grad).mean(1), self._alignments(condition, grad)
        return self._measure(guidance, alignments, mean_text(condition))

    def save_memory(self) -> bool:
        """Takes one row at a time from now on; returns False if that is so already. See `Guidance.save_memory`."""
        return any([part.save_memory() for part in self._parts])

    @property
    def forward_rows(self) -> int:
        """Rows that went through the network so far."""
        return sum(part.forward_rows for part in self._parts)

    @property
    def backward_rows(self) -> int:
        """Rows that were differentiated so far."""
        return sum(part.backward_rows for part in self._parts)

    @property
    def _parts(self) -> list[Guidance]:
        return [self.guidance] if self.alignment is None else [self.guidance, self.alignment.guidance]

    def _alignments(self, condition: Condition, grad: bool = False) -> Tensor | None:
        return None if self.alignment is None else self.alignment(condition, grad=grad).mean(1)

    def _measure(self, guidance: Tensor, alignments: Tensor | None, words: Tensor | None) -> Measure:
        combination = self.calibration.combination
        # what words lead to expect is no aim: embeddings must not be moved to where much is expected
        score = combination.score(ring_energy(guidance), alignments) - self.calibration.expected(words)
        similarity = guidance_similarity(guidance, self._original, combination.reference).double().cpu()
        return Measure(score, similarity, self.calibration.p_of(score.detach()))


def numbers(test: Objective, after: Measure, *others: Objective) -> dict[str, Any]:
    """Returns a `Mitigation`'s fields that are numbers.

    Args:
        test: What measured the original and, on noise that the method has not seen, what became of it.
        after: The latter, one row.
        others: What else was measured with; its rows count.
    """
    before, parts = test.before, (test, *others)
    return {
        "score_before": before.score.item(),
        "score_after": after.score.item(),
        "p_before": before.p_value.item(),
        "p_after": after.p_value.item(),
        "recall": after.guidance_similarity.item(),
        "forward_rows": sum(part.forward_rows for part in parts),
        "backward_rows": sum(part.backward_rows for part in parts),
    }
