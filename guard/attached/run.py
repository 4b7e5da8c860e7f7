"""One guarded call: watch the network's answers, judge the first, and let go, mend or block."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..adapters.network_calls import watched
from ..adapters.pipeline_call import initial_noise, offload_again
from ..adapters.request import RandomState, Request
from ..condition import without_extras
from ..errors import (
    CalibrationError,
    CryptomnesiaError,
    MemorizationBlocked,
    MemorizationWarning,
    NotApplicable,
    UnverifiedBlocked,
    UnverifiedWarning,
)
from ..memory import is_out_of_memory
from ..mitigation.mend import METHODS, failed, mend, stacked
from ..mitigation.result import Mended
from ..report import MemorizationReport
from ..signals.memorization import derived_seed, draw_noise
from .facts import facts_of, reseeded
from .first_step import FirstLook, FirstStep, PrivateDraws, look
from .judged import Difference, Judged
from .sentry import Sentry
from .strength import UNKNOWN_STRENGTH, WEAKENED, Strength

NOT_SEEN = (
    "the network's first call was not seen: it is called by another way than network(...), or is wrapped, or replaced"
)
ANOTHER_THREAD = "the network was called from another thread, where nothing is checked"


class _Again(BaseException):
    """Leaves the pipeline's call before its first step, to make it once more with other arguments."""

    def __init__(self, arguments: dict[str, Any]):
        self.arguments = arguments


class GuardedTuple(tuple):
    """What a pipeline returns with return_dict=False, with the reports of its images."""

    memorization: list[MemorizationReport]


class Memory:
    """What a guard keeps from call to call, since it hangs on the model alone."""

    def __init__(self) -> None:
        self.private, self.strength = PrivateDraws(), Strength()


class Run:
    """A guarded call of a pipeline, from the first attempt to the output.

    Args:
        guard: Says how to judge and what to do.
        call: The pipeline class's own `__call__`.
        request: What the user asked for.
        memory: Of the guard.
        sentry: Watches the network for calls that are none of this call's.
    """

    def __init__(self, guard: Any, call: Callable[..., Any], request: Request, memory: Memory, sentry: Sentry):
        self.guard, self.call, self.request, self.memory, self.sentry = guard, call, request, memory, sentry
        self.denoiser = guard.denoiser
        self.facts = facts_of(call, self.denoiser.pipe, request)
        self.reports: list[MemorizationReport] | None = None
        self.judged: Judged | None = None
        self.elsewhere = False
        self.tried: dict[int, Mended] = {}  # by image

    def output(self) -> Any:
        """What the pipeline returns, with `memorization`, a list of one report per image.

        Raises:
            MemorizationBlocked: The policy says so; no step was taken.
            UnverifiedBlocked: What could not be checked is not handed out.
        """
        pipe, arguments = self.denoiser.pipe, self.request.arguments
        state = RandomState(arguments.get("generator"), self.denoiser.device)
        try:
            with self._watched():
                out = self.call(pipe, **arguments)
        except _Again as again:
            # noise that is given is not drawn again
            if again.arguments.get("latents") is None:
                state.restore()
            self.reports = self.judged = None
            with self._watched():
                out = self.call(pipe, **again.arguments)
        reports = self._in_the_end()
        _warn(reports, self.guard.unverified)
        if isinstance(out, tuple):
            out = GuardedTuple(out)
        out.memorization = reports
        return out

    def another_thread_called(self) -> None:
        """To be told where another thread got an answer of the network: maybe the pipeline's own work."""
        self.elsewhere = True

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Judges the network's first call, before the sampler's first step, and compares the others with it."""

        def seen(arguments: dict[str, Any], output: Any) -> None:
            if self.reports is None:
                self._judge(arguments, output)
            elif self.judged is not None:
                self._doubt(self.judged.compare(arguments, output), "while sampling")

        # others may ask, too: the check, or another thread
        with watched(self.denoiser, seen, lambda: self.sentry.belongs_to(self)):
            try:
                with self.sentry.during(self):
                    yield
            except (_Again, MemorizationBlocked):
                offload_again(self.denoiser.pipe)
                raise

    def _judge(self, arguments: dict[str, Any], output: Any) -> None:
        try:
            self.request.require_pure_noise(self.call)
            if not self.denoiser.text_encoders:
                raise NotApplicable("without a text encoder the model's empty prompt is unknown: load it, too")
            step = FirstStep.read(self.denoiser, arguments, output, self.request.images)
            self.reports = self._look(step)
            if not self.tried and self.guard.policy in METHODS:
                self._mend(step)
            self.judged = Judged(self.denoiser, step, self.reports[0].fingerprint, self.request.has_callback)
        except (CryptomnesiaError, RuntimeError) as reason:  # a check that fails must not take the user's image with it
            if not isinstance(reason, CryptomnesiaError) and not is_out_of_memory(reason):
                raise
            self.reports = self._without_verdict(str(reason))
        self.reports = [self._with_mitigation(i, report) for i, report in enumerate(self.reports)]
        last = self.guard.otherwise if self.guard.policy in METHODS else self.guard.policy
        if last == "block" and any(report.memorized for report in self.reports):
            raise MemorizationBlocked(self._with_facts())
        self._require_verdicts("before the first step")

    # --- what could not be checked ---

    def _doubt(self, found: Difference | None, when: str) -> None:
        """Takes back the verdict on images that are no longer what was judged; a suspicion is not taken back."""
        if found is None:
            return
        images, reason = found
        reports = list(self.reports or [])
        for i in images:
            if reports[i].memorized:
                notes = [note for note in (reports[i].note, reason) if note]
                reports[i] = replace(reports[i], note="; ".join(dict.fromkeys(notes)))
            elif reports[i].verdict != "not applicable":
                fresh = self.guard.without_verdict(reports[i].prompt, reason, seed=self.guard.seed)
                reports[i] = replace(
                    fresh,
                    forward_rows=reports[i].forward_rows,
                    mitigation=reports[i].mitigation,
                    draws=reports[i].draws,
                )
        self.reports = reports
        self._require_verdicts(when)

    def _in_the_end(self) -> list[MemorizationReport]:
        """The reports, once everything is sampled."""
        when = "after sampling"
        if self.reports is None:
            self.reports = self._without_verdict(ANOTHER_THREAD if self.elsewhere else NOT_SEEN)
            self._require_verdicts(when)
        elif self.judged is not None:
            self._doubt(self.judged.at_the_end(), when)
            if self.elsewhere:
                self._doubt((list(range(self.request.images)), ANOTHER_THREAD), when)
        return self._with_facts()

    def _require_verdicts(self, when: str) -> None:
        reports = self.reports or []
        if self.guard.unverified == "block" and not all(report.verified for report in reports):
            raise UnverifiedBlocked(
                self._with_facts(),
                f"blocked {when}: {_unverified(reports)}. Mend that, or let such images out with unverified='warn'",
            )

    def _with_facts(self) -> list[MemorizationReport]:
        chosen = {i for i, mended in self.tried.items() if mended.noise is not None and mended.mitigation.held}
        return [
            replace(report, call=reseeded(facts) if i in chosen else facts)
            for i, (report, facts) in enumerate(zip(self.reports or [], self.facts, strict=True))
        ]

    # --- judging ---

    def _look(self, step: FirstStep) -> list[MemorizationReport]:
        shape = tuple(step.noise.shape[1:])
        calibration, reason, fingerprint = self.guard._calibration_for(shape), None, self.denoiser.fingerprint
        draws = 1 if calibration is None else calibration.draws
        if calibration is not None:
            try:
                calibration.require(self.denoiser, draws, shape, fingerprint)
            except CalibrationError as error:
                calibration, reason = None, str(error)
        private = self._private(draws - 1, shape, fingerprint)
        found = look(self.denoiser, step, self.request.numbers, private)
        common = {"reason": reason, "draws": draws, "seed": self.guard.seed, "fingerprint": fingerprint}
        reports = self._reports(found, calibration, common)
        if calibration is None or self.request.prompts[0] is not None:
            return reports
        sphere = self.memory.strength.sphere(self.denoiser)
        whole = None if sphere is None else sphere.restored(step.positive)
        if whole is None:
            return reports if sphere else [replace(report, note=UNKNOWN_STRENGTH) for report in reports]
        again = look(self.denoiser, replace(step, positive=whole, guidance=None), self.request.numbers, private)
        pairs = zip(reports, self._reports(again, calibration, common), strict=True)
        return [
            replace(max(pair, key=_score), forward_rows=sum(report.forward_rows for report in pair), note=WEAKENED)
            for pair in pairs
        ]

    def _private(self, draws: int, shape: tuple[int, ...], fingerprint: str) -> Any:
        if draws < 1:
            return None
        # other draws after a mitigation, which must hold on noise that it has not seen
        seed = derived_seed(self.guard.seed, "attached", bool(self.tried))
        noise = draw_noise(self.denoiser, draws, seed, shape)  # type: ignore[arg-type]
        key = (fingerprint, str(self.denoiser.device), seed, draws, shape)
        return self.memory.private.guidance(self.denoiser, noise, key)

    def _reports(self, found: FirstLook, calibration: Any, common: dict[str, Any]) -> list[MemorizationReport]:
        scores = found.iso.double() if calibration is None else calibration.combination.score(found.spectrum)
        p_values = [None] * len(scores) if calibration is None else calibration.p_of(scores).tolist()
        return [
            self.guard.report(
                prompt,
                calibration,
                score=scores[i].item(),
                p_value=p_values[i],
                iso=found.iso[i].item(),
                aniso=None,
                forward_rows=-(-found.forward_rows // len(scores)),
                **common,
            )
            for i, prompt in enumerate(self.request.prompts)
        ]

    def _without_verdict(self, reason: str) -> list[MemorizationReport]:
        return [self.guard.without_verdict(prompt, reason, seed=self.guard.seed) for prompt in self.request.prompts]

    # --- mending ---

    def _mend(self, step: FirstStep) -> None:
        """Tries to mend every image of every prompt that was flagged; raises _Again if that held for any."""
        numbers, found = self.request.numbers, {}  # type: ignore[var-annotated]
        flagged = sorted({numbers[i] for i, report in enumerate(self.reports or []) if report.memorized})
        for i in (i for i, number in enumerate(numbers) if number in flagged):
            # each image needs a noise of its own, but all images of a prompt share its wording
            key = i if self.guard.policy == "reseed" else numbers[i]
            if key not in found:
                found[key] = self._mend_one(step, i)
            self.tried[i] = found[key]
        held = {i: mended for i, mended in self.tried.items() if mended.mitigation.held}
        if held:
            raise _Again(self._mended_arguments(step, held))

    def _mend_one(self, step: FirstStep, image: int) -> Mended:
        guard, prompt = self.guard, self.request.prompts[image]
        try:
            if guard.policy == "rewrite":
                prompt = self.request.require_rewritable(image)
                lengths = [c.tensors["text"].shape[1] for c in (step.positive, self.denoiser.empty)]
                if lengths[0] != lengths[1]:
                    raise NotApplicable(
                        f"this call reads {lengths[0]} tokens, the check {lengths[1]}: leave out max_sequence_length"
                    )
            return mend(
                guard.policy,
                self.denoiser,
                guard.calibration,
                prompt,
                without_extras(step.positive[[image]], self.denoiser.empty),
                seed=derived_seed(guard.seed, "mend", image),
                shape=tuple(step.noise.shape[1:]),  # type: ignore[arg-type]
                rewriter=guard.rewriter,
                words=guard.words,
            )
        except (CryptomnesiaError, RuntimeError) as error:
            if not isinstance(error, CryptomnesiaError) and not is_out_of_memory(error):
                raise
            return failed(guard.policy, prompt, str(error))

    def _mended_arguments(self, step: FirstStep, held: dict[int, Mended]) -> dict[str, Any]:
        images = range(self.request.images)
        if self.guard.policy == "reseed":
            own = initial_noise(self.denoiser, step.noise)
            rows = [held[i].noise if i in held else own[i : i + 1] for i in images]
            return self.request.with_noise(torch.cat([row.to(own) for row in rows if row is not None]))
        kept = [step.positive[[i]] for i in images]
        mended = [held[i].condition if i in held else None for i in images]
        rows = [kept[i] if row is None else row for i, row in enumerate(mended)]
        return self.request.with_conditions(stacked(rows), step.negative)

    def _with_mitigation(self, image: int, report: MemorizationReport) -> MemorizationReport:
        if image not in self.tried:
            return report
        about = self.tried[image].mitigation
        if about.held and report.memorized:
            about = replace(about, held=False, reason="it did not hold when sampling began")
        return replace(report, mitigation=about)


def _score(report: MemorizationReport) -> float:
    return -float("inf") if report.score is None else report.score


def _unverified(reports: list[MemorizationReport]) -> str:
    """How many images have no verdict, and why, without the prompt: messages end up in logs."""
    reasons = list(dict.fromkeys(str(report.reason) for report in reports if not report.verified))
    count = sum(not report.verified for report in reports)
    return f"{count} of {len(reports)} images could not be checked for memorization ({'; '.join(reasons)})"


def _warn(reports: list[MemorizationReport], unverified: str) -> None:
    flagged = sum(report.memorized for report in reports)
    if flagged:
        warnings.warn(
            f"{flagged} of {len(reports)} images likely recite training data: see .memorization of the output",
            MemorizationWarning,
            stacklevel=5,
        )
    if unverified == "warn" and not all(report.verified for report in reports):
        warnings.warn(
            f"{_unverified(reports)}: mend that, or silence this with unverified='allow'",
            UnverifiedWarning,
            stacklevel=5,
        )
