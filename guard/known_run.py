"""Measuring prompts that are known to be memorized, beside benign ones, to learn a calibration's score from."""

from collections.abc import Sequence
from pathlib import Path

from .calibration import check_promise
from .calibration_run import MeasuringRun
from .denoiser import Denoiser
from .known import Learned, learn, split


class KnownRun(MeasuringRun):
    """Measurements of known prompts that can be stopped and resumed, and what they teach.

    Args:
        denoiser, draws, seed, partial, latent_shape, time: As in `MeasuringRun`.
        known: Memorized prompts, at least 20.
        benign: Benign prompts. One in three is learned from, those that are known to be memorized are left out.
        alpha: The false-alarm rate that the others are to promise.

    Attributes:
        rest: The benign prompts that are not learned from, to calibrate with.

    Raises:
        InputError: Too few prompts of a kind, and as in `CalibrationRun`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        known: Sequence[str],
        benign: Sequence[str],
        *,
        draws: int,
        seed: int,
        alpha: float,
        partial: Path,
        latent_shape: tuple[int, int, int] | None = None,
        time: int | None = None,
    ):
        memorized, learning, self.rest = split(known, benign)
        check_promise(len(self.rest), alpha, draws)
        self._memorized = len(memorized)
        prompts = [*memorized, *learning]
        super().__init__(
            denoiser,
            prompts,
            draws=draws,
            seed=seed,
            partial=partial,
            latent_shape=latent_shape,
            time=time,
            alignment=True,
        )

    def learned(self) -> Learned:
        """Returns what the measurements teach, once all are there; errors as in `learn`."""
        measured = self.measured
        return learn(measured[: self._memorized], measured[self._memorized :], seed=self.seed)
