"""The two-line interface: a guard checks prompts on a model before anything is sampled."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .adapters import to_denoiser
from .calibration import Calibration
from .errors import InputError, NotApplicable
from .report import MemorizationReport
from .signals.memorization import MemorizationResult, draw_noise, memorization_score

POLICIES = ("warn",)


class Guard:
    """Checks prompts for memorization.

    Args:
        pipe_or_denoiser: A diffusers pipeline or a Denoiser that can encode prompts.
        calibration: A Calibration or the path of one; without it no verdict is given.
        policy: "warn": report and change nothing.

    Raises:
        InputError: The pipeline or the policy is not supported.
        CalibrationError: The calibration file is malformed. That it fits the model is tested at every check.
    """

    def __init__(
        self, pipe_or_denoiser: Any, calibration: Calibration | str | Path | None = None, policy: str = "warn"
    ):
        if policy not in POLICIES:
            raise InputError(f"unknown policy {policy!r}: use one of {', '.join(POLICIES)}")
        self.denoiser: Any = to_denoiser(pipe_or_denoiser)
        self.calibration = Calibration.load(calibration) if isinstance(calibration, str | Path) else calibration
        self.policy = policy

    def check(
        self, prompt: str, *, seed: int = 0, draws: int = 4, height: int | None = None, width: int | None = None
    ) -> MemorizationReport:
        """Tells, before sampling, whether the model is likely to recite training data for this prompt.

        Args:
            prompt: Checked as the pipeline would truncate it.
            seed: Of the private noise; nothing else is drawn.
            draws: Noise draws: 4 draws cost 16 rows of the network, next to 100 of a 50-step generation.
            height, width: Of the image in pixels, by default the model's own.

        Raises:
            InputError: Zero draws, or a size that the model cannot make.
            CalibrationError: The calibration is for another model or other settings.
            NonFiniteError: The model answered with NaN or infinity.
        """
        return next(self.check_many([prompt], seed=seed, draws=draws, height=height, width=width))

    def check_many(
        self,
        prompts: Iterable[str],
        *,
        seed: int = 0,
        draws: int = 4,
        height: int | None = None,
        width: int | None = None,
        chunk: int = 64,
    ) -> Iterator[MemorizationReport]:
        """Checks a stream of prompts, `chunk` at a time; arguments and errors as in `check`."""
        shape = self.denoiser.latent_shape(height, width)
        noise = draw_noise(self.denoiser, draws, seed, shape)
        if self.calibration is not None:
            self.calibration.require(self.denoiser, draws, shape)
        common = {"seed": seed, "draws": draws, "fingerprint": self.denoiser.fingerprint}
        waiting = iter(prompts)
        while batch := list(islice(waiting, chunk)):
            try:
                result = memorization_score(self.denoiser, self.denoiser.encode(batch), noise=noise)
            except NotApplicable as reason:
                yield from (_without_verdict(prompt, str(reason), common) for prompt in batch)
                continue
            yield from self._reports(batch, result, common)

    def _reports(
        self, prompts: list[str], result: MemorizationResult, common: dict[str, Any]
    ) -> Iterator[MemorizationReport]:
        calibration = self.calibration
        scores = (result.score if calibration is None else calibration.score(result)).tolist()
        p_values = [None] * len(prompts) if calibration is None else calibration.p_value(result).tolist()
        for i, (prompt, score, p_value) in enumerate(zip(prompts, scores, p_values, strict=True)):
            if calibration is None or p_value is None:
                verdict, reason = "uncalibrated", "no calibration for this model: run `cryptomnesia calibrate`"
            else:
                verdict, reason = ("memorized" if p_value <= calibration.alpha else "clear"), None
            yield MemorizationReport(
                prompt=prompt,
                verdict=verdict,
                score=score,
                iso=result.iso[i].item(),
                aniso=result.aniso[i].item(),
                p_value=p_value,
                alpha=None if calibration is None else calibration.alpha,
                reason=reason,
                note=self._note(prompt),
                forward_rows=-(-result.forward_rows // len(prompts)),
                calibration_id=None if calibration is None else calibration.identity,
                **common,
            )

    def _note(self, prompt: str) -> str | None:
        if self.denoiser.truncated(prompt):
            return "the prompt is longer than the text encoder reads: it was checked as the pipeline truncates it"
        return None


def _without_verdict(prompt: str, reason: str, common: dict[str, Any]) -> MemorizationReport:
    return MemorizationReport(
        prompt=prompt,
        verdict="not applicable",
        score=None,
        iso=None,
        aniso=None,
        p_value=None,
        alpha=None,
        reason=reason,
        note=None,
        forward_rows=0,
        calibration_id=None,
        **common,
    )
