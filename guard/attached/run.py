"""One guarded call: watch the network's answers, judge the first, and let go, mitigate or block."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..adapters.network_calls import watched
from ..adapters.pipeline_call import attention_as_found, offload_again
from ..adapters.request import RandomState, Request, without_shared_lists
from ..calibration_source import CalibrationSource
from ..denoiser import Denoiser
from ..errors import (
    CryptomnesiaError,
    MemorizationBlocked,
    MemorizationWarning,
    UnverifiedBlocked,
    UnverifiedWarning,
)
from ..memory import is_out_of_memory
from ..protocols import PipelineDenoiser
from ..report import MemorizationReport
from ..verdict import not_applicable
from .blanking import without_images
from .facts import facts_of, reseeded
from .first_step import FirstStep
from .judged import Difference, Judged
from .judging import Judging, Memory
from .mitigating import Mitigating
from .policy import Policy
from .sentry import Sentry

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


class Run:
    """A guarded call of a pipeline, from the first attempt to the output.

    Args:
        denoiser, host: The model, as what it is and as what its pipeline adds.
        call: The pipeline class's own `__call__`.
        request: What the user asked for.
        calibrations: Where the calibration comes from.
        policy: What follows from a verdict.
        memory: What the guard keeps from call to call.
        sentry: Watches the network for calls that are none of this call's.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        host: PipelineDenoiser,
        call: Callable[..., Any],
        request: Request,
        calibrations: CalibrationSource,
        policy: Policy,
        memory: Memory,
        sentry: Sentry,
    ):
        self.denoiser, self.host, self.call, self.request = denoiser, host, call, request
        self.policy, self.sentry = policy, sentry
        self.judging = Judging(denoiser, host, request, calibrations, policy.seed, memory)
        self.mitigating = Mitigating(denoiser, host, request, policy)
        self.facts = facts_of(call, host.pipe, request)
        self.reports: list[MemorizationReport] | None = None
        self.judged: Judged | None = None
        self.elsewhere = False

    def output(self) -> Any:
        """Makes the call, and returns what the pipeline returns, with `memorization`, a list of one report per image.

        Raises:
            MemorizationBlocked: The policy says so; no step was taken.
            UnverifiedBlocked: What could not be checked is not handed out.
        """
        pipe, arguments = self.host.pipe, self.request.arguments
        state = RandomState(arguments.get("generator"), self.denoiser.device)
        try:
            with self._watched():
                out = self.call(pipe, **without_shared_lists(arguments))
        except _Again as again:
            # noise that is given is not drawn again
            if again.arguments.get("latents") is None:
                state.restore()
            self.reports = self.judged = None
            with self._watched():
                out = self.call(pipe, **without_shared_lists(again.arguments))
        reports = self._in_the_end()
        _warn(reports, self.policy.unverified)
        if self.policy.per_image:
            out = without_images(out, [i for i, report in enumerate(reports) if self.policy.keeps_back(report)])
        if isinstance(out, tuple):
            out = GuardedTuple(out)
        out.memorization = reports
        return out

    def another_thread_called(self) -> None:
        """Notes that another thread got an answer of the network: maybe the pipeline's own work."""
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
        with watched(self.host, seen, lambda: self.sentry.belongs_to(self)):
            try:
                with self.sentry.during(self), attention_as_found(self.host.pipe):
                    yield
            except (_Again, MemorizationBlocked):
                offload_again(self.host.pipe)
                raise

    def _judge(self, arguments: dict[str, Any], output: Any) -> None:
        try:
            self.request.require_pure_noise(self.call)
            self.denoiser.require_guidance()
            step = FirstStep.read(self.denoiser, self.host, arguments, output, self.request.images)
            again = bool(self.mitigating.tried)
            self.reports = self.judging.reports(step, again=again)
            if not again:
                mended = self.mitigating.again(step, self.reports, self.judging.calibration)
                if mended is not None:
                    raise _Again(mended)
            fingerprint = self.reports[0].fingerprint
            self.judged = Judged(self.denoiser, self.host, step, fingerprint, self.request.has_callback)
        except (CryptomnesiaError, RuntimeError) as reason:  # a check that fails must not take the user's image with it
            if not isinstance(reason, CryptomnesiaError) and not is_out_of_memory(reason):
                raise
            self.reports = self._without_verdict(str(reason))
        self.reports = self.mitigating.with_mitigations(self.reports)
        if self.policy.blocks and any(report.memorized for report in self.reports) and not self._some_go_out():
            raise MemorizationBlocked(self._with_facts())
        self._require_verdicts("before the first step")

    def _some_go_out(self) -> bool:
        """Whether images are kept back one by one, and not all of them are."""
        return self.policy.per_image and not all(self.policy.keeps_back(report) for report in self.reports or [])

    # --- what could not be checked ---

    def _doubt(self, difference: Difference | None, when: str) -> None:
        """Takes back the verdict on images that are no longer what was judged; a suspicion is not taken back."""
        if difference is None:
            return
        images, reason = difference
        reports = list(self.reports or [])
        for i in images:
            if reports[i].memorized:
                notes = [note for note in (reports[i].note, reason) if note]
                reports[i] = replace(reports[i], note="; ".join(dict.fromkeys(notes)))
            elif reports[i].verdict != "not applicable":
                fresh = not_applicable(self.denoiser, reports[i].prompt, reason, seed=self.policy.seed)
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
        if self._some_go_out():
            return
        if self.policy.unverified == "block" and not all(report.verified for report in reports):
            raise UnverifiedBlocked(
                self._with_facts(),
                f"blocked {when}: {_unverified(reports)}. Fix that, or let such images out with unverified='warn'",
            )

    def _with_facts(self) -> list[MemorizationReport]:
        chosen = self.mitigating.reseeded()
        return [
            replace(report, call=reseeded(facts) if i in chosen else facts)
            for i, (report, facts) in enumerate(zip(self.reports or [], self.facts, strict=True))
        ]

    def _without_verdict(self, reason: str) -> list[MemorizationReport]:
        seed = self.policy.seed
        return [not_applicable(self.denoiser, prompt, reason, seed=seed) for prompt in self.request.prompts]


def _unverified(reports: list[MemorizationReport]) -> str:
    """How many images have no verdict, and why, without the prompt: messages end up in logs."""
    reasons = list(dict.fromkeys(str(report.reason) for report in reports if not report.verified))
    count = sum(not report.verified for report in reports)
    return f"{count} of {len(reports)} images could not be checked for memorization ({'; '.join(reasons)})"


def _warn(reports: list[MemorizationReport], unverified: str) -> None:
    flagged = sum(report.memorized for report in reports)
    if flagged:
        warnings.warn(
            f"{flagged} of {len(reports)} images likely reproduce training data: see .memorization of the output",
            MemorizationWarning,
            stacklevel=5,
        )
    if unverified == "warn" and not all(report.verified for report in reports):
        warnings.warn(
            f"{_unverified(reports)}: fix that, or silence this with unverified='allow'",
            UnverifiedWarning,
            stacklevel=5,
        )
