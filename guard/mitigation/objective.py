"""What every mitigation lowers: the calibrated score of a condition, and how much it still recalls the original."""

from dataclasses import dataclass

from torch import Tensor

from ..calibration import Calibration
from ..denoiser import Condition, Denoiser
from ..signals.guidance import Guidance
from ..signals.memorization import draw_noise
from ..signals.recall import recall
from ..signals.rings import ring_energy

LIMIT = 0.1  # recall above it brings the old image back, on the built-in model's development captions
COMFORTABLE = 0.1  # p-value; what has just left the flagged ones may recite another image still


@dataclass(frozen=True)
class Measure:
    """Of P conditions, all (P,) float64 on the CPU; higher score = more likely memorized, recall as in signals."""

    score: Tensor
    recall: Tensor
    p_value: Tensor

    def holds(self, alpha: float) -> Tensor:
        """(P,) bool: as ordinary as a benign prompt comfortably is, and not pulling to the original's image."""
        return (self.p_value > max(alpha, COMFORTABLE)) & (self.recall <= LIMIT)


class Objective:
    """Score and recall on fixed noise draws, cheap to ask again and differentiable.

    Args:
        denoiser: The model.
        calibration: Made for it; gives the score's form and its p-values.
        original: The condition that was found memorized, one row.
        seed: Of the private noise. Another seed gives another, independent test.
        draws: By default as calibrated.
        shape: (C, H, W) of the latent, by default the calibration's.
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
        self.guidance = Guidance(denoiser, noise)
        self._original = self.guidance(original).mean(1)

    @property
    def before(self) -> Measure:
        """Of the original itself; its recall is 1."""
        return self._measure(self._original)

    def __call__(self, condition: Condition, *, grad: bool = False) -> Measure:
        """Of P conditions; with `grad`, score and recall are differentiable in the condition's tensors."""
        return self._measure(self.guidance(condition, grad=grad).mean(1))

    def _measure(self, guidance: Tensor) -> Measure:
        combination = self.calibration.combination
        score = combination.score(ring_energy(guidance))
        same = recall(guidance, self._original, combination.reference).double().cpu()
        return Measure(score, same, self.calibration.p_of(score.detach()))
