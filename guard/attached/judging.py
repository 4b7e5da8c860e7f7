"""The verdict on the sampler's first step: measured on its own noise and, by the calibration, on private draws."""

from dataclasses import replace

from ..adapters.request import Request
from ..calibration import Calibration
from ..calibration_source import CalibrationSource
from ..denoiser import Denoiser, NoiseLevel
from ..errors import CalibrationError
from ..protocols import PipelineDenoiser
from ..report import MemorizationReport
from ..signals.draws import FixedDraws, derived_seed
from ..signals.guidance import Guidance
from ..verdict import reports_on
from .first_step import FirstStep, look
from .strength import UNKNOWN_STRENGTH, WEAKENED, Strength


class Memory:
    """What a guard keeps from call to call, since it depends on the model alone."""

    def __init__(self) -> None:
        self.private, self.strength = FixedDraws(), Strength()


class Judging:
    """Judges first steps of one guarded call.

    Args:
        denoiser, host: The model, as what it is and as what its pipeline adds.
        request: What the user asked for.
        calibrations: Where the calibration comes from.
        seed: The seed of the private noise.
        memory: What the guard keeps from call to call.

    Attributes:
        calibration: The calibration that the last verdicts rest on, or None.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        host: PipelineDenoiser,
        request: Request,
        calibrations: CalibrationSource,
        seed: int,
        memory: Memory,
    ):
        self.denoiser, self.host, self.request, self.seed = denoiser, host, request, seed
        self.calibrations, self.memory = calibrations, memory
        self.calibration: Calibration | None = None

    def reports(self, step: FirstStep, *, again: bool) -> list[MemorizationReport]:
        """Returns one report per image.

        Args:
            step: The sampler's first step.
            again: Whether this is the call after a mitigation, which must hold on other private draws.

        Raises:
            NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`.
        """
        shape, fingerprint = step.shape, self.denoiser.fingerprint
        calibration, reason = self.calibrations.find(
            self.denoiser, shape, fingerprint=fingerprint, time=step.timestep(self.denoiser)
        )
        draws = 1 if calibration is None else calibration.draws
        if calibration is not None:
            try:
                calibration.require(self.denoiser, draws, shape, fingerprint)
            except CalibrationError as error:
                calibration, reason = None, str(error)
        self.calibration = calibration
        level = self.denoiser.levels.pure_noise if calibration is None else calibration.level(self.denoiser)
        weighed = calibration is not None and calibration.combination.takes_alignment
        private = self._private(draws - 1, shape, fingerprint, again, level)

        low = self.memory.private.alignment(private) if weighed and private is not None else None

        def on(step: FirstStep) -> list[MemorizationReport]:
            return reports_on(
                self.denoiser,
                self.request.prompts,
                look(self.denoiser, step, self.request.numbers, private, level, weighed=weighed, low=low),
                calibration,
                seed=self.seed,
                fingerprint=fingerprint,
                reason=reason,
            )

        reports = on(step)
        if calibration is None or self.request.prompts[0] is not None:
            return reports
        sphere = self.memory.strength.sphere(self.denoiser, self.host)
        whole = None if sphere is None else sphere.restored(step.positive)
        if whole is None:
            return reports if sphere else [replace(report, note=UNKNOWN_STRENGTH) for report in reports]
        pairs = zip(reports, on(replace(step, positive=whole, upper=None)), strict=True)
        return [
            replace(max(pair, key=_score), forward_rows=sum(report.forward_rows for report in pair), note=WEAKENED)
            for pair in pairs
        ]

    def _private(
        self, draws: int, shape: tuple[int, int, int], fingerprint: str, again: bool, level: NoiseLevel
    ) -> Guidance | None:
        if draws < 1:
            return None
        seed = derived_seed(self.seed, "attached", again)
        return self.memory.private.guidance(self.denoiser, draws, seed, shape, fingerprint, level)


def _score(report: MemorizationReport) -> float:
    return -float("inf") if report.score is None else report.score
