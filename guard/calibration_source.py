"""Which calibration serves a model: one that was given, or the one that is kept for the model as it is now."""

from collections.abc import Sequence
from pathlib import Path

from . import calibration_store
from .calibration import Calibration
from .calibration_misfit import Binding, binding_of
from .denoiser import Denoiser

AUTO = "auto"
NO_CALIBRATION = "no calibration for this model: run `cryptomnesia calibrate`, or guard.calibrate() in Python"


class CalibrationSource:
    """Gives the calibration for each check.

    Args:
        given: A Calibration, the path of one, "auto" for the one that is kept for the model at each check, or None.

    Attributes:
        auto: Whether the calibration is looked up at each check.
        calibration: The one that was given, or was looked up last.
        why_none: Why there is none, where the cause is known.

    Raises:
        CalibrationError: The file is malformed. That it fits the model is tested at every check.
    """

    def __init__(self, given: Calibration | str | Path | None = None):
        self.auto = isinstance(given, str) and given == AUTO
        self.why_none: str | None = None
        self._served: tuple[Binding, int] | None = None  # what the one that was looked up last was looked up for
        named = None if self.auto else given
        self.calibration = Calibration.load(named) if isinstance(named, str | Path) else named

    def find(
        self,
        denoiser: Denoiser,
        shape: Sequence[int],
        draws: int | None = None,
        fingerprint: str | None = None,
        time: int | None = None,
    ) -> tuple[Calibration | None, str | None]:
        """Returns the calibration for latents of that shape, which may not fit if it was given; or None, and why.

        Args:
            denoiser: The model.
            shape: (C, H, W) of its latents.
            draws: That one that is looked up must fit, or None for any number.
            fingerprint: The model's, where it is known already.
            time: The sampler's first timestep, to prefer a calibration at; by default the model's own at pure noise.
        """
        # by names of their own: another thread may ask for another size meanwhile
        known, why, served = self.calibration, self.why_none, self._served
        if self.auto:
            now = binding_of(denoiser, shape, draws or (known.draws if known else 0), fingerprint, time)
            if known is None or (known.binding != now and served != (now, id(known))):
                known, why = calibration_store.find(denoiser, shape, draws, now.fingerprint, time)
                self.calibration, self.why_none = known, why
                self._served = known and (now._replace(draws=known.draws), id(known))
        return (known, None) if known is not None else (None, why or NO_CALIBRATION)
