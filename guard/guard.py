"""The two-line interface: a guard checks prompts on a model before anything is sampled, and mitigates if asked to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from . import calibration_store, verdict
from .adapters import to_denoiser
from .adapters.pipeline_call import first_timestep
from .attached.attachment import Attachment
from .attached.policy import Policy
from .calibration import Calibration
from .calibration_source import CalibrationSource
from .denoiser import Condition, Denoiser
from .errors import InputError
from .localization import PROBES, STEPS, Baseline, Location, locate
from .mitigation.mitigate import mitigate
from .mitigation.result import Mended
from .mitigation.rewrite import Rewriter
from .progress import Progress
from .protocols import encoder_of, pipeline_of
from .report import MemorizationReport, Method
from .signals.batching import rows_per_call
from .signals.draws import DRAWS, FixedDraws


class Guard:
    """Checks prompts for memorization, alone or while a pipeline samples.

    Args:
        pipe_or_denoiser: A diffusers pipeline or a Denoiser that can encode prompts.
        calibration: A Calibration, the path of one, or "auto" for the one that is kept for the model as it is at each
            check (see `calibrate`); without one no verdict is given.
        policy: What an attached guard does about images that are likely memorized. "warn": report and warn; "block":
            raise MemorizationBlocked; "rewrite": change words of the prompt; "embed": move its embedding; "attenuate":
            take tokens that carry the memory out of attention; "reseed": start from another noise.
        unverified: What an attached guard does about images that could not be checked, whose verdict is "uncalibrated"
            or "not applicable". "allow": report; "warn": report and warn; "block": raise UnverifiedBlocked, before the
            first step where that can be known by then. By default "block" under the policy "block", else "warn".
        per_image: Of a call with several images, blank (black) those that must not go out, whose reports say why, in
            place of raising for all; what goes out is what it would have been. Raised is where none is left.
        fallback: "warn" or "block": what to do where the mitigation did not hold; it does not change `unverified`.
        rewriter: For "rewrite": gives whole prompts to try first, e.g. by a language model.
        words: For "rewrite": a word list, one word per line, in place of the package's.
        seed: The seed of the private noise of attached checks and of mitigations.
        otherwise: The former name of `fallback`; takes its place where it is given.

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
        per_image: bool = False,
        fallback: str = "warn",
        rewriter: Rewriter | None = None,
        words: str | Path | None = None,
        seed: int = 0,
        otherwise: str | None = None,
    ):
        self._policy = Policy.of(
            policy,
            fallback=fallback if otherwise is None else otherwise,
            unverified=unverified,
            per_image=per_image,
            seed=seed,
            rewriter=rewriter,
            words=words,
        )
        self.denoiser: Denoiser = to_denoiser(pipe_or_denoiser)
        self._calibrations, self._kept = CalibrationSource(calibration), FixedDraws()
        if self.calibration is None and policy != "warn" and not self._calibrations.auto:
            raise InputError(
                f"the policy {policy!r} acts on verdicts, and there are none without a calibration: "
                "run `cryptomnesia calibrate` and give its file as calibration="
            )
        self._attachment = Attachment(self.denoiser, self._calibrations, self._policy)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that was given, or with "auto" the one that was looked up last; may be set."""
        return self._calibrations.calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibrations.calibration = calibration

    @property
    def why_uncalibrated(self) -> str | None:
        """Why there is no calibration, for reports, where the cause is known; may be set."""
        return self._calibrations.why_none

    @why_uncalibrated.setter
    def why_uncalibrated(self, reason: str | None) -> None:
        self._calibrations.why_none = reason

    @property
    def policy(self) -> str:
        """The policy as given."""
        return self._policy.name

    @property
    def unverified(self) -> str:
        """What happens to images that could not be checked: as given, or as the policy has it by default."""
        return self._policy.unverified

    # --- checking ---

    def check(
        self,
        prompt: str,
        *,
        seed: int = 0,
        draws: int | None = None,
        height: int | None = None,
        width: int | None = None,
        alignment: bool = False,
    ) -> MemorizationReport:
        """Tells, before sampling, whether the model is likely to reproduce training data for this prompt.

        Args:
            prompt: Checked as the pipeline would truncate it.
            seed: The seed of the private noise; nothing else is drawn.
            draws: The number of noise draws, by default as calibrated, else 4. Each is a row of the network, and once
                per model and seed another for the empty prompt, next to 100 rows of a 50-step generation.
            height, width: The image's size in pixels, by default the model's own.
            alignment: Also measure aniso, which takes part in no verdict and costs three times as many rows more.

        Returns:
            The report, with the score (higher = more likely memorized), the p-value and the verdict.

        Raises:
            InputError: Zero draws, or a size that the model cannot make.
            CalibrationError: The calibration is for another model or other settings.
            NonFiniteError: The model answered with NaN or infinity.
        """
        size: dict[str, Any] = {"height": height, "width": width}
        return next(self.check_many([prompt], seed=seed, draws=draws, alignment=alignment, **size))

    def check_many(
        self,
        prompts: Iterable[str],
        *,
        seed: int = 0,
        draws: int | None = None,
        height: int | None = None,
        width: int | None = None,
        alignment: bool = False,
        batch_rows: int | None = None,
        chunk: int | None = None,
    ) -> Iterator[MemorizationReport]:
        """Checks a stream of prompts and yields a report on each, as many at a time as share a call of the network.

        Args:
            prompts: The prompts, as they come.
            seed, draws, height, width, alignment: As in `check`, with its errors.
            batch_rows: Most rows of the network that a call has; fewer need less memory. By default as many as are
                quickest, and no more than the pipeline's own steps have where images are large or memory is short.
            chunk: Prompts that are read and encoded at a time; by default as many as share a call.
        """
        shape = self.denoiser.latent_shape(height, width)
        settings: dict[str, Any] = {"seed": seed, "draws": draws, "shape": shape, "alignment": alignment}
        waiting = iter(prompts)
        while batch := list(islice(waiting, chunk or self._prompts_per_call(shape, draws, batch_rows))):
            condition = encoder_of(self.denoiser).encode(batch)
            yield from self.judge(batch, condition, batch_rows=batch_rows, **settings)

    def _prompts_per_call(self, shape: tuple[int, int, int], draws: int | None, batch_rows: int | None) -> int:
        draws = draws or (self.calibration.draws if self.calibration else DRAWS)
        return max(1, rows_per_call(self.denoiser, shape, batch_rows) // draws)

    def judge(
        self,
        prompts: Sequence[str | None],
        condition: Condition,
        *,
        seed: int = 0,
        draws: int | None = None,
        shape: tuple[int, int, int] | None = None,
        alignment: bool = False,
        batch_rows: int | None = None,
    ) -> list[MemorizationReport]:
        """Checks conditions that are encoded already, and returns a report on each row; see `verdict.check`."""
        return verdict.check(
            self.denoiser,
            prompts,
            condition,
            self._calibrations,
            seed=seed,
            draws=draws,
            shape=shape,
            alignment=alignment,
            batch_rows=batch_rows,
            kept=self._kept,
        )

    # --- calibrating ---

    def calibrate(
        self,
        prompts: Iterable[str] | None = None,
        *,
        draws: int | None = None,
        seed: int = 0,
        alpha: float = 0.01,
        quick: bool = False,
        steps: int | None = None,
        known: Iterable[str] | None = None,
        by_words: bool = False,
        height: int | None = None,
        width: int | None = None,
        progress: Progress | None = None,
    ) -> Calibration:
        """Learns what is normal on the pipeline as it stands: its device, dtype and LoRAs.

        The calibration is used from now on, and kept where "auto" finds it. Can be stopped, and goes on where it was;
        one that was made of the same prompts already is taken as it is.

        Args:
            prompts: At least 100 benign prompts like your own, by default a shipped list.
            draws: Noise draws per prompt, and of checks from now on; by default 4, or 1 if quick.
            seed: The noise's seed.
            alpha: The false-alarm rate to promise.
            quick: Take 100 of the prompts alone, evenly spaced: at one draw as many rows as two images of 50 steps. It
                promises as much, and flags less of what is memorized (docs/results.md).
            steps: Sampling steps of your calls: guidance is measured where the pipeline's scheduler starts with these,
                so that an attached guard asks for no rows of its own at one draw. By default where 50 steps of DDIM
                start; a model of flow matching starts at the same time whatever the steps.
            known: At least 20 prompts that this model is known to have memorized. What they teach of ring energies and
                alignment is used where it tells held-out ones better than the default score does, and doubles a
                check's rows then; one benign prompt in three is learned from, and the others calibrate.
            by_words: Also learn from the benign prompts what score a prompt's words lead to expect, and take a part of
                it off: it flags more prompts that are memorized in part, at no cost to a check, but on distilled
                models fewer that are memorized whole (docs/results.md). Not together with known.
            height, width: The image's size in pixels, by default the model's own.
            progress: Called with the number of prompts done, and of all.

        Returns:
            The calibration.

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
            quick=quick,
            time=None if steps is None else first_timestep(self.denoiser, steps),
            known=known,
            by_words=by_words,
            latent_shape=self.denoiser.latent_shape(height, width),
            progress=progress,
        )
        return self.calibration

    # --- generating ---

    def attach(self) -> None:
        """Checks every call of the pipeline from now on, until `detach`; may be nested.

        Images that are not flagged come out bit-identical. The pipeline's output carries `memorization`, a list of one
        report per image. Calls are made one after the other, whatever thread they come from. Calls that go round the
        guard, e.g. of a copy of the pipeline, are treated as `unverified` says; docs/what-a-guard-sees.md lists them.

        Raises:
            InputError: The guard was made of a bare Denoiser, or another guard is attached to the pipeline.
        """
        self._attachment.attach()

    def detach(self) -> None:
        """Undoes one `attach`; the pipeline is as before once all are undone, and all `attached` blocks left.

        Does nothing without an `attach`, and warns where the guard stays attached then.
        """
        self._attachment.detach()

    @contextmanager
    def attached(self) -> Iterator["Guard"]:
        """`with guard.attached(): out = pipe(prompt)`; detached at the end, whatever happens. See `attach`."""
        with self._attachment.attached():
            yield self

    def mitigate(
        self,
        prompt: str | None,
        method: Method = "rewrite",
        *,
        condition: Condition | None = None,
        shape: tuple[int, int, int] | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Mended:
        """Mitigates the memorization of a prompt, flagged or not, and tests the result on fresh noise.

        Args:
            prompt: The prompt; None where only its condition is known, which "rewrite" and "attenuate" cannot use.
            method: "rewrite", "embed", "attenuate" or "reseed".
            condition: The prompt's condition, one row, by default the prompt's.
            shape: The latent's shape (C, H, W), in place of height and width.
            height, width: The image's size in pixels, by default the model's own.

        Returns:
            What was tried and measured, with what to sample with; `mitigation.held` says whether the test was passed.

        Raises:
            InputError: No calibration, an unknown method, or a size that the model cannot make.
            CalibrationError: The calibration is for another model or size.
            NotApplicable, NonFiniteError, OutOfMemory: As in `check`.
        """
        size = shape or self.denoiser.latent_shape(height, width)
        calibration, reason = self._calibrations.find(self.denoiser, size)
        if calibration is None:
            raise InputError(f"mitigation needs a calibration: {reason}")
        calibration.require(self.denoiser, calibration.draws, size)
        return mitigate(
            method,
            self.denoiser,
            calibration,
            prompt,
            encoder_of(self.denoiser).encode(prompt) if condition is None else condition,
            seed=self._policy.seed,
            shape=size,
            rewriter=self._policy.rewriter,
            words=self._policy.words,
        )

    mend = mitigate  # the former name

    def locate(
        self,
        prompt: str,
        *,
        seed: int = 0,
        steps: int = STEPS,
        guidance: float | None = None,
        height: int | None = None,
        width: int | None = None,
        baseline: Baseline = None,
        probes: int = PROBES,
        seeds: int = 0,
        report: MemorizationReport | None = None,
        progress: Progress | None = None,
    ) -> Location:
        """Samples one image with the pipeline's own call, and tells where it reproduces training data.

        Args:
            prompt: The prompt, as the pipeline takes it.
            seed: The seed of the image and of the check's private noise.
            report: The prompt's report, if it was checked already.
            steps, guidance, height, width, baseline, probes, seeds, progress: As in `localization.locate`.

        Returns:
            The image with its map, its mask and the report.

        Raises:
            CalibrationError: The calibration is for another model or size.
            InputError, NotApplicable, NonFiniteError, OutOfMemory: As in `localization.locate`.
        """
        if report is None:
            host = pipeline_of(self.denoiser)
            shape = self.denoiser.latent_shape(height, width)
            report = self.judge([prompt], host.encode(prompt), seed=seed, shape=shape)[0]
        return locate(
            self.denoiser,
            prompt,
            report,
            seed=seed,
            steps=steps,
            guidance=guidance,
            height=height,
            width=width,
            baseline=baseline,
            probes=probes,
            seeds=seeds,
            progress=progress,
        )

    # --- saving ---

    def save(
        self,
        image: Any,
        path: str | Path,
        report: MemorizationReport | Mapping[str, Any] | None,
        *,
        seed: int | str | None = None,
        prompt: str | None = None,
        negative: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        prompts: Literal["plain", "hash", "none"] = "plain",
        evidence: Iterable[tuple[str, str | Path]] = (),
        findings: Iterable[Any] = (),
        c2pa: Any = None,
        embed: Any = None,
        store: str | Path | bool | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        """Saves an image of the pipeline with provenance that tells how it was made and what the report says.

        What a guarded call made needs no more than the report: seed, negative prompt and settings are those that the
        guard saw. What is given here comes before that; what nobody knows is null, with the reason.

        Args:
            image: A Pillow image, or an array or tensor (H, W, 3), uint8 or float in [0, 1].
            path: Ends in .png, .jpg, .jpeg, .webp or .avif.
            report: The image's report, as in the output's `memorization`, or what its to_dict gave; None if nothing was
                checked.
            seed: The seed of the image's generator.
            prompt: The prompt, by default that of the report.
            negative: The negative prompt.
            sampling: Settings of the call, e.g. {"steps": 50, "guidance_scale": 7.5}.
            embed: True, or a `sidecar.Marking`, to put the provenance into the image's own file, too: a signed C2PA
                manifest where there is a key (`cryptomnesia keys new`), else XMP alone.
            store: A folder whose store remembers the image, so that `verify` finds it again; by default the one of the
                settings, if any.
            prompts, evidence, findings, c2pa, options: As in `sidecar.save`.

        Returns:
            The path of the sidecar.

        Raises:
            InputError: The guard was made of a bare Denoiser, or an argument cannot be used; nothing was changed.
            SidecarError: The image or its sidecar cannot be written; the message says which.
            MissingPackage: Pillow is not installed.
        """
        from .sidecar import save
        from .sidecar.pipelines import generation_of

        host = pipeline_of(self.denoiser, "tell how it made an image", "use sidecar.save with a Generation")
        return save(
            image,
            path,
            report,
            generation_of(host.pipe, report, seed=seed, prompt=prompt, negative=negative, sampling=sampling),
            prompts=prompts,
            evidence=evidence,
            findings=findings,
            calibration=self.calibration,
            c2pa=c2pa,
            embed=embed,
            store=store,
            options=options,
        )
