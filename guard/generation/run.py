"""One guarded call: watch the network's first answer, judge it, and let go, mend or block."""

import copy
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CalibrationError, CryptomnesiaError, MemorizationBlocked, MemorizationWarning, NotApplicable
from ..memory import is_out_of_memory
from ..mitigation.mend import METHODS, failed, mend, stacked
from ..mitigation.result import Mended
from ..report import MemorizationReport
from ..signals.memorization import derived_seed, draw_noise
from .first_step import FirstLook, FirstStep, PrivateDraws, look, without_extras
from .request import RandomState, Request


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
        guard: Says how to judge and what to do.
        call: The pipeline class's own `__call__`.
        request: What the user asked for.
        private: Keeps the empty branch of the private draws between calls.
    """

    def __init__(self, guard: Any, call: Callable[..., Any], request: Request, private: PrivateDraws):
        self.guard, self.call, self.request, self.private = guard, call, request, private
        self.denoiser = guard.denoiser
        self.reports: list[MemorizationReport] | None = None
        self.tried: dict[int, Mended] = {}  # by image

    def output(self) -> Any:
        """What the pipeline returns, with `memorization`, a list of one report per image.

        Raises:
            MemorizationBlocked: The policy says so; no step was taken.
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
            with self._watched():
                out = self.call(pipe, **again.arguments)
        reports = self.reports or self._without_verdict("the network's first call was not seen")
        _warn(reports)
        if isinstance(out, tuple):
            out = GuardedTuple(out)
        out.memorization = reports
        return out

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Judges the network's first call, before the sampler's first step."""
        network = self.denoiser.network
        forward = inspect.signature(type(getattr(network, "_orig_mod", network)).forward)

        own, text = threading.get_ident(), ExitStack()

        def first(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if threading.get_ident() != own:  # another thread asks the same network, e.g. a check
                return
            handle.remove()  # before the check asks the network itself
            text.close()
            self._judge(forward.bind(module, *args, **kwargs).arguments, output)

        handle = network.register_forward_hook(first, with_kwargs=True)
        text.enter_context(self.denoiser.text_lock)  # prompts are encoded before the first call
        try:
            yield
        except (_Again, MemorizationBlocked):
            self.denoiser.pipe.maybe_free_model_hooks()
            raise
        finally:
            handle.remove()
            text.close()

    def _judge(self, arguments: dict[str, Any], output: Any) -> None:
        try:
            self.request.require_pure_noise(self.call)
            step = FirstStep.read(self.denoiser, arguments, output, self.request.images)
            self.reports = self._look(step)
            if not self.tried and self.guard.policy in METHODS:
                self._mend(step)
        except (CryptomnesiaError, RuntimeError) as reason:  # a check that fails must not take the user's image with it
            if not isinstance(reason, CryptomnesiaError) and not is_out_of_memory(reason):
                raise
            self.reports = self._without_verdict(str(reason))
        self.reports = [self._with_mitigation(i, report) for i, report in enumerate(self.reports)]
        last = self.guard.otherwise if self.guard.policy in METHODS else self.guard.policy
        if last == "block" and any(report.memorized for report in self.reports):
            raise MemorizationBlocked(self.reports)

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
        found = look(self.denoiser, step, self.request.numbers, self._private(draws - 1, shape, fingerprint))
        common = {"reason": reason, "draws": draws, "seed": self.guard.seed, "fingerprint": fingerprint}
        return self._reports(found, calibration, common)

    def _private(self, draws: int, shape: tuple[int, ...], fingerprint: str) -> Any:
        if draws < 1:
            return None
        # other draws after a mitigation, which must hold on noise that it has not seen
        seed = derived_seed(self.guard.seed, "attached", bool(self.tried))
        noise = draw_noise(self.denoiser, draws, seed, shape)  # type: ignore[arg-type]
        key = (fingerprint, str(self.denoiser.device), seed, draws, shape)
        return self.private.guidance(self.denoiser, noise, key)

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
            own = self._initial_noise(step)
            rows = [held[i].noise if i in held else own[i : i + 1] for i in images]
            return self.request.with_noise(torch.cat([row.to(own) for row in rows if row is not None]))
        kept = [step.positive[[i]] for i in images]
        mended = [held[i].condition if i in held else None for i in images]
        rows = [kept[i] if row is None else row for i, row in enumerate(mended)]
        return self.request.with_conditions(stacked(rows), step.negative)

    def _initial_noise(self, step: FirstStep) -> Tensor:
        """x_T as the pipeline drew it: some schedulers scale it on its way to the network."""
        scheduler = copy.deepcopy(self.denoiser.pipe.scheduler)
        scale = torch.ones(1) * float(getattr(scheduler, "init_noise_sigma", 1.0))
        if hasattr(scheduler, "scale_model_input"):
            scale = scheduler.scale_model_input(scale, scheduler.timesteps[0])
        return (step.noise / scale.to(step.noise)).to(self.denoiser.dtype)

    def _with_mitigation(self, image: int, report: MemorizationReport) -> MemorizationReport:
        if image not in self.tried:
            return report
        about = self.tried[image].mitigation
        if about.held and report.memorized:
            about = replace(about, held=False, reason="it did not hold when sampling began")
        return replace(report, mitigation=about)


def _warn(reports: list[MemorizationReport]) -> None:
    flagged = sum(report.memorized for report in reports)
    if flagged:
        # without the prompt: warnings end up in logs
        warnings.warn(
            f"{flagged} of {len(reports)} images likely recite training data: see .memorization of the output",
            MemorizationWarning,
            stacklevel=5,
        )
