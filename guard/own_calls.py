"""Marks network calls that the library makes itself, so that a guard that watches the network can tell them apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_OWN: ContextVar[bool] = ContextVar("cryptomnesia_own_call", default=False)


@contextmanager
def own_calls() -> Iterator[None]:
    """Calls that this thread makes of any network within the block are the library's own."""
    token = _OWN.set(True)
    try:
        yield
    finally:
        _OWN.reset(token)


def is_own_call() -> bool:
    """Returns whether the library itself is asking, in this thread."""
    return _OWN.get()
