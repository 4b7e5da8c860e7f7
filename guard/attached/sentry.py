"""Notices calls of a guarded pipeline's network that do not come from a guarded call.

A copy of the pipeline, a `__call__` that was taken before the guard came, or another thread ask the same network, and
no check precedes them. A deep copy has a network of its own, and takes the sentry along with it.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..adapters.network_calls import Handle, hook
from ..errors import UnverifiedBlocked, UnverifiedWarning
from ..own_calls import is_own_call

ROUND = (
    "the network of a guarded pipeline was called round its guard, by a copy of the pipeline, by another thread or "
    "directly, so that nothing was checked: call the guarded pipeline itself, detach the guard, or allow it with "
    "unverified='allow'"
)


class GuardedCall(Protocol):
    """What a sentry knows of a guarded call."""

    def another_thread_called(self) -> None:
        """Notes that another thread got an answer of the network."""
        ...


class Sentry:
    """A forward pre-hook of the network, there while a guard is attached. It changes nothing.

    Args:
        unverified: "allow", "warn" or "block": what follows from a call that goes round the guard.
    """

    def __init__(self, unverified: str):
        self.unverified = unverified
        self._hook: Handle | None = None
        self._network: Any = None
        self._warned = False
        self._runs: list[tuple[int, GuardedCall]] = []  # threads and guarded calls, the innermost last

    def watch(self, network: Any) -> None:
        """Watches this network from now on, where it is a torch module, and no other."""
        if self._hook is None or network is not self._network:
            self.leave()
            hookable = hasattr(network, "register_forward_pre_hook")
            self._network, self._hook = network, hook(network, before=self) if hookable else None
            self._warned = False

    def leave(self) -> None:
        """Stops watching."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._network = None

    @contextmanager
    def during(self, run: GuardedCall) -> Iterator[None]:
        """Within the block, calls of this thread belong to a guarded call, which looks at them itself."""
        self._runs.append((threading.get_ident(), run))
        self._warned = False
        try:
            yield
        finally:
            self._runs.pop()

    def belongs_to(self, run: GuardedCall) -> bool:
        """Returns whether a call that this thread makes now is one that the pipeline makes in that guarded call."""
        return not is_own_call() and self._runs[-1:] == [(threading.get_ident(), run)]

    def __call__(self, module: Any, args: Any) -> None:
        runs = self._runs[-1:]
        watching = self._network is not None  # deep copies keep their hook
        if not watching or is_own_call() or any(thread == threading.get_ident() for thread, _ in runs):
            return
        if self.unverified == "block":
            raise UnverifiedBlocked([], ROUND)
        for _, run in runs:
            run.another_thread_called()
        if self.unverified == "warn" and not self._warned:
            self._warned = True  # once per sampling would be better, but a network does not know where one begins
            warnings.warn(ROUND, UnverifiedWarning, stacklevel=2)

    # copies and pickles of the network must not fail for it

    def __deepcopy__(self, memo: Any) -> "Sentry":
        return self

    def __reduce__(self) -> Any:
        return nobody, ()


def nobody() -> "Sentry":
    """Returns the sentry of a pickled network, which watches nothing."""
    return Sentry("allow")
