"""The two-line interface: a guard checks prompts on a model before anything is sampled, and mends them if asked to."""

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import calibration_store
from .adapters import to_denoiser
from .adapters.request import Request
from .attached.attach import attach, detach
from .attached.run import Memory, Run
from .attached.sentry import Sentry
from .calibration import Calibration
from .calibration_misfit import binding_of
from .denoiser import Condition
from .errors import InputError, NotApplicable, UnverifiedWarning
from .mitigation.mend import METHODS, mend
from .mitigation.result import Mended, Method
from .mitigation.rewrite import Rewriter
from .report import MemorizationReport
from .signals.memorization import MemorizationResult, draw_noise, memorization_score

if TYPE_CHECKING:
    from .localization import Location

POLICIES = ("warn", "block", *METHODS)
AUTO = "auto"
UNVERIFIED = ("allow", "warn", "block")
NO_CALIBRATION = "no calibration for this model: run `cryptomnesia calibrate`, or guard.calibrate() in Python"


class Guard:
    """Checks prompts for memorization, alone or while a pipeline samples.

    Args:
        pipe_or_denoiser: A diffusers pipeline or a Denoiser that can encode prompts.
        calibration: A Calibration, the path of one, or "auto" for the one that is kept for the model as it is at each
            check (see `calibrate`); without one no verdict is given.
        policy: What an attached guard does about images that are likely memorized. "warn": report and warn; "block":
            raise MemorizationBlocked; "rewrite": change words of the prompt; "embed": move its embedding; "reseed":
            start from another noise.
        unverified: What an attached guard does about images that could not be checked, whose verdict is "uncalibrated"
            or "not applicable". "allow": report; "warn": report and warn; "block": raise UnverifiedBlocked, before the
            first step where that can be known by then. By default "block" under the policy "block", else "warn".
        otherwise: "warn" or "block", where mending did not hold; it does not change what `unverified` is.
        rewriter: For "rewrite": gives whole prompts to try first, e.g. by a language model.
        words: For "rewrite": a word list, one word per line, in place of the package's.
        seed: Of the private noise of attached checks and of mitigations.

    Raises:
        InputError: The pipeline or a policy is not supported, or a policy needs a calibration and there is none.
        CalibrationError: The calibration file is malformed. That it fits the model is tested at every check.
    """

    def __init__(
        self,
        pipe_or_denoiser: Any,
        calibration: Calibration | str | Path | None = None,
        policy: str = "warn",
        *,
        unverified: str | None = None,
        otherwise: str = "warn",
        rewriter: Rewriter | None = None,
        words: str | Path | None = None,
        seed: int = 0,
    ):
        if policy not in POLICIES:
            raise InputError(f"unknown policy {policy!r}: use one of {', '.join(POLICIES)}")
        if otherwise not in ("warn", "block"):
            raise InputError(f"otherwise is 'warn' or 'block', where mending did not hold, not {otherwise!r}")
        if unverified not in (None, *UNVERIFIED):
            raise InputError(
                f"unverified is one of {', '.join(UNVERIFIED)}, for what could not be checked, not {unverified!r}"
            )
        self.denoiser: Any = to_denoiser(pipe_or_denoiser)
        self._auto = isinstance(calibration, str) and calibration == AUTO  # looked up at every check
        self.why_uncalibrated: str | None = None  # for reports, where the cause is known
        named = None if self._auto else calibration
        self.calibration = Calibration.load(named) if isinstance(named, str | Path) else named
        if self.calibration is None and policy != "warn" and not self._auto:
            raise InputError(
                f"the policy {policy!r} acts on verdicts, and there are none without a calibration: "
                "run `cryptomnesia calibrate` and give its file as calibration="
            )
        self.policy, self.otherwise, self.seed = policy, otherwise, seed
        self.rewriter, self.words = rewriter, None if words is None else Path(words)
        self.unverified = unverified or ("block" if policy == "block" else "warn")
        self._lock, self._users, self._blocks = threading.RLock(), 0, 0
        self._memory, self._sentry = Memory(), Sentry(self.unverified)

    # --- checking ---

    def check(
        self,
        prompt: str,
        *,
        seed: int = 0,
        draws: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> MemorizationReport:
        """Tells, before sampling, whether the model is likely to recite training data for this prompt.

        Args:
            prompt: Checked as the pipeline would truncate it.
            seed: Of the private noise; nothing else is drawn.
            draws: Noise draws, by default as calibrated, else 4; these cost 16 rows of the network, next to 100 of a
                50-step generation.
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
        draws: int | None = None,
        height: int | None = None,
        width: int | None = None,
        chunk: int = 64,
    ) -> Iterator[MemorizationReport]:
        """Checks a stream of prompts, `chunk` at a time; arguments and errors as in `check`."""
        shape = self.denoiser.latent_shape(height, width)
        waiting = iter(prompts)
        while batch := list(islice(waiting, chunk)):
            yield from self.judge(batch, self.denoiser.encode(batch), seed=seed, draws=draws, shape=shape)

    def judge(
        self,
        prompts: Sequence[str | None],
        condition: Condition,
        *,
        seed: int = 0,
        draws: int | None = None,
        shape: tuple[int, int, int] | None = None,
        alignment: bool = True,
    ) -> list[MemorizationReport]:
        """Checks conditions that are encoded already, all on the same noise; errors as in `check`.

        Args:
            prompts: Their texts for the reports, where known.
            condition: One row per prompt.
            seed, draws: Of the private noise; draws as in `check`.
            shape: (C, H, W) of the latent, by default the model's own.
            alignment: Also measure aniso, which takes part in no verdict and doubles the rows.
        """
        try:
            self.denoiser.require_guidance()
        except NotApplicable as reason:
            return [self.without_verdict(prompt, str(reason), seed=seed, draws=draws or 0) for prompt in prompts]
        known = self._calibration_for(shape or self.denoiser.latent_shape(), draws)
        draws = draws if draws is not None else 4 if known is None else known.draws
        noise = draw_noise(self.denoiser, draws, seed, shape)
        fingerprint = self.denoiser.fingerprint
        if known is not None:
            known.require(self.denoiser, draws, noise.shape[1:], fingerprint)
        try:
            result = memorization_score(self.denoiser, condition, noise=noise, alignment=alignment)
        except NotApplicable as reason:
            return [self.without_verdict(prompt, str(reason), seed=seed, draws=draws) for prompt in prompts]
        return list(self._reports(prompts, result, known, {"seed": seed, "fingerprint": fingerprint}))

    def _reports(
        self,
        prompts: Sequence[str | None],
        result: MemorizationResult,
        calibration: Calibration | None,
        common: dict[str, Any],
    ) -> Iterator[MemorizationReport]:
        scores = (result.score if calibration is None else calibration.score(result)).tolist()
        p_values = [None] * len(prompts) if calibration is None else calibration.p_value(result).tolist()
        for i, (prompt, score, p_value) in enumerate(zip(prompts, scores, p_values, strict=True)):
            yield self.report(
                prompt,
                calibration,
                score=score,
                p_value=p_value,
                iso=result.iso[i].item(),
                aniso=None if result.aniso is None else result.aniso[i].item(),
                draws=result.draws,
                forward_rows=-(-result.forward_rows // len(prompts)),
                **common,
            )

    # --- calibrating ---

    def calibrate(
        self,
        prompts: Iterable[str] | None = None,
        *,
        draws: int = 4,
        seed: int = 0,
        alpha: float = 0.01,
        height: int | None = None,
        width: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Calibration:
        """Learns what is normal on the pipeline as it stands: its device, dtype and LoRAs.

        The calibration is used from now on, and kept where "auto" finds it. Can be stopped, and goes on where it was;
        one that was made of the same prompts already is taken as it is.

        Args:
            prompts: At least 100 benign prompts like your own, by default a shipped list.
            draws: Noise draws per prompt, and of checks from now on.
            seed: Of the noise.
            alpha: The false-alarm rate to promise.
            height, width: Of the image in pixels, by default the model's own.
            progress: Called with the number of prompts done, and of all.

        Raises:
            InputError: Too few prompts, odd settings, or a model that cannot encode prompts.
            CalibrationError: It cannot be kept.
            NotApplicable, NonFiniteError, OutOfMemory: As in `check`.
        """
        self.denoiser.require_guidance()
        self.calibration = calibration_store.make(
            self.denoiser,
            prompts,
            draws=draws,
            seed=seed,
            alpha=alpha,
            latent_shape=self.denoiser.latent_shape(height, width),
            progress=progress,
        )
        return self.calibration

    def _calibration_for(self, shape: Sequence[int], draws: int | None = None) -> Calibration | None:
        """The calibration for latents of that shape; with "auto" the one that is kept for the model as it is now."""
        known = self.calibration
        if not self._auto:
            return known
        if known is None or known.binding != binding_of(self.denoiser, shape, draws or known.draws):
            # by a name of its own: another thread may ask for another size meanwhile
            known, self.why_uncalibrated = calibration_store.find(self.denoiser, shape, draws)
            self.calibration = known
        return known

    # --- generating ---

    def attach(self) -> None:
        """Checks every call of the pipeline from now on, until `detach`; may be nested.

        Images that are not flagged come out bit-identical. The pipeline's output carries `memorization`, a list of one
        report per image. Calls are made one after the other, whatever thread they come from. Calls that go round the
        guard, e.g. of a copy of the pipeline, are treated as `unverified` says; docs/what-a-guard-sees.md lists them.

        Raises:
            InputError: The guard was made of a bare Denoiser, or another guard is attached to the pipeline.
        """
        with self._lock:
            self._put_on()
            self._users += 1

    def detach(self) -> None:
        """Undoes one `attach`; the pipeline is as before once all are undone, and all `attached` blocks left.

        Does nothing without an `attach`, and warns where the guard stays attached then.
        """
        with self._lock:
            if self._users:
                self._users -= 1
            elif self._blocks:
                warnings.warn(
                    "detach() without attach(): the guard stays attached until its `with` block ends",
                    UnverifiedWarning,
                    stacklevel=2,
                )
            self._take_off()

    @contextmanager
    def attached(self) -> Iterator["Guard"]:
        """`with guard.attached(): out = pipe(prompt)`; detached at the end, whatever happens. See `attach`."""
        with self._lock:
            self._put_on()
            self._blocks += 1
        try:
            yield self
        finally:
            with self._lock:
                self._blocks -= 1
                self._take_off()

    def _put_on(self) -> None:
        pipe = getattr(self.denoiser, "pipe", None)
        if pipe is None:
            raise InputError("only a pipeline can be guarded while it samples: make the guard of one, or use check()")
        if not self._users + self._blocks:
            attach(pipe, self._call)
            self._sentry.watch(self.denoiser.network)

    def _take_off(self) -> None:
        if not self._users + self._blocks:
            detach(getattr(self.denoiser, "pipe", None), self._call)
            self._sentry.leave()

    def _call(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._lock:
            self._sentry.watch(self.denoiser.network)
            request = Request.read(call, self.denoiser.pipe, args, kwargs)
            return Run(self, call, request, self._memory, self._sentry).output()

    def mend(
        self,
        prompt: str | None,
        method: Method = "rewrite",
        *,
        condition: Condition | None = None,
        shape: tuple[int, int, int] | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Mended:
        """Mends a prompt, whether or not it is flagged, and tests the result on fresh noise.

        Args:
            prompt: The prompt; None where only its condition is known, which "rewrite" cannot use.
            method: "rewrite", "embed" or "reseed".
            condition: Its condition, one row, by default the prompt's.
            shape: (C, H, W) of the latent, in place of height and width.
            height, width: Of the image in pixels, by default the model's own.

        Raises:
            InputError: No calibration, an unknown method, or a size that the model cannot make.
            CalibrationError: The calibration is for another model or size.
            NotApplicable, NonFiniteError, OutOfMemory: As in `check`.
        """
        size: tuple[int, int, int] = shape or self.denoiser.latent_shape(height, width)
        calibration = self._calibration_for(size)
        if calibration is None:
            raise InputError(f"mending needs a calibration: {self.why_uncalibrated or NO_CALIBRATION}")
        calibration.require(self.denoiser, calibration.draws, size)
        return mend(
            method,
            self.denoiser,
            calibration,
            prompt,
            self.denoiser.encode(prompt) if condition is None else condition,
            seed=self.seed,
            shape=size,
            rewriter=self.rewriter,
            words=self.words,
        )

    def locate(self, prompt: str, **settings: Any) -> "Location":
        """Samples one image with the pipeline's own call, and tells where it is recited.

        Args:
            prompt: As for the pipeline.
            settings: seed, steps, guidance, height, width, baseline, probes, report and progress of
                `localization.locate`.

        Raises:
            InputError, NotApplicable, CalibrationError, NonFiniteError, OutOfMemory: As `localization.locate` says.
        """
        from .localization import locate

        return locate(self, prompt, **settings)

    # --- reporting ---

    def report(
        self,
        prompt: str | None,
        calibration: Calibration | None,
        *,
        p_value: float | None,
        reason: str | None = None,
        **measured: Any,
    ) -> MemorizationReport:
        """The report on measurements, with the verdict that the calibration gives, if any."""
        if calibration is None or p_value is None:
            verdict, reason = "uncalibrated", reason or self.why_uncalibrated or NO_CALIBRATION
        else:
            verdict = "memorized" if p_value <= calibration.alpha else "clear"
        return MemorizationReport(
            prompt=prompt,
            verdict=verdict,
            reason=reason,
            p_value=p_value,
            alpha=None if calibration is None else calibration.alpha,
            note=self._note(prompt),
            calibration_id=None if calibration is None else calibration.identity,
            **measured,
        )

    def without_verdict(self, prompt: str | None, reason: str, *, seed: int, draws: int = 0) -> MemorizationReport:
        """The report where the question has no meaning, or could not be answered."""
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
            seed=seed,
            draws=draws,
            forward_rows=0,
            fingerprint=self._fingerprint(),
            calibration_id=None,
        )

    def _fingerprint(self) -> str | None:
        try:
            return self.denoiser.fingerprint
        except (InputError, NotApplicable):  # what cannot be told apart may be why there is no verdict
            return None

    def _note(self, prompt: str | None) -> str | None:
        if prompt is not None and self.denoiser.truncated(prompt):
            return "the prompt is longer than the text encoder reads: it was checked as the pipeline truncates it"
        return None

    # --- saving ---

    def save(
        self,
        image: Any,
        path: str | Path,
        report: MemorizationReport | None,
        *,
        seed: int | str | None = None,
        prompt: str | None = None,
        negative: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        """Saves an image of the pipeline with a sidecar that tells how it was made and what the report says.

        What a guarded call made needs no more than the report: seed, negative prompt and settings are those that the
        guard saw. What is given here comes before that; what nobody knows is null, with the reason.

        Args:
            image: A Pillow image, or an array or tensor (H, W, 3), uint8 or float in [0, 1].
            path: Ends in .png, .jpg, .jpeg or .webp.
            report: Of the image, as in the output's `memorization`; None if nothing was checked.
            seed: Of the image's generator.
            prompt: By default that of the report.
            negative: The negative prompt.
            sampling: Settings of the call, e.g. {"steps": 50, "guidance_scale": 7.5}.
            options: Further arguments of `sidecar.save`: prompts, evidence, findings, c2pa, options.

        Returns:
            The path of the sidecar.

        Raises:
            InputError: The guard was made of a bare Denoiser, or an argument cannot be used; nothing was changed.
            SidecarError: The image or its sidecar cannot be written; the message says which.
            MissingPackage: Pillow is not installed.
        """
        from .sidecar import save
        from .sidecar.pipelines import generation_of

        pipe = getattr(self.denoiser, "pipe", None)
        if pipe is None:
            raise InputError("only a pipeline can tell how it made an image: use sidecar.save with a Generation")
        facts = {"seed": seed, "prompt": prompt, "negative": negative, "sampling": sampling}
        generation = generation_of(pipe, report, **facts)
        return save(image, path, report, generation, **{"calibration": self.calibration, **options})
