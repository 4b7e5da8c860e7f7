"""A guard's hold on a pipeline: put on, taken off, and what happens to each call in between."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..adapters.request import Request
from ..calibration_source import CalibrationSource
from ..denoiser import Denoiser
from ..errors import UnverifiedWarning
from ..protocols import PipelineDenoiser, pipeline_of
from .attach import attach, detach
from .policy import Policy
from .run import Memory, Run
from .sentry import Sentry


class Attachment:
    """Checks the calls of a pipeline while it is attached; calls are made one after the other, whatever thread asks.

    Args:
        denoiser: The model.
        calibrations: Where the calibration for each call comes from.
        policy: What follows from a verdict.
    """

    def __init__(self, denoiser: Denoiser, calibrations: CalibrationSource, policy: Policy):
        self.denoiser, self.calibrations, self.policy = denoiser, calibrations, policy
        self.memory, self._sentry = Memory(), Sentry(policy.unverified)
        self._lock, self._users, self._blocks = threading.RLock(), 0, 0

    def attach(self) -> None:
        """Attaches the guard; see `Guard.attach`."""
        with self._lock:
            self._put_on()
            self._users += 1

    def detach(self) -> None:
        """Undoes one `attach`; see `Guard.detach`."""
        with self._lock:
            if self._users:
                self._users -= 1
            elif self._blocks:
                warnings.warn(
                    "detach() without attach(): the guard stays attached until its `with` block ends",
                    UnverifiedWarning,
                    stacklevel=3,
                )
            self._take_off()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches the guard within the block; see `Guard.attached`."""
        with self._lock:
            self._put_on()
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                self._take_off()

    @property
    def _host(self) -> PipelineDenoiser:
        return pipeline_of(self.denoiser, "be guarded while it samples", "make the guard of one, or use check()")

    def _put_on(self) -> None:
        host = self._host
        if not self._users + self._blocks:
            attach(host.pipe, self._call)
            self._sentry.watch(host.network)

    def _take_off(self) -> None:
        if not self._users + self._blocks and isinstance(self.denoiser, PipelineDenoiser):
            detach(self.denoiser.pipe, self._call)
            self._sentry.leave()

    def _call(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._lock:
            host = self._host
            self._sentry.watch(host.network)
            request = Request.read(call, host.pipe, args, kwargs)
            run = Run(self.denoiser, host, call, request, self.calibrations, self.policy, self.memory, self._sentry)
            return run.output()
