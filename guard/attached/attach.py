"""Puts a guard around one pipeline object, and takes it off without a trace.

Python looks up `__call__` on the class, so the object gets a subclass of its own with the same name. Neither the
pipeline's class nor its parts are changed.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..adapters.pipeline_call import ORIGINAL
from ..errors import InputError

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
_HANDLER = "_cryptomnesia_handler"


def attach(pipe: Any, handler: Handler) -> None:
    """Sends pipe(...) to handler(call, args, kwargs) from now on, with `call` the class's own `__call__`.

    Copies and pickles of the pipeline are of its own class.

    Raises:
        InputError: Another guard is attached.
    """
    original: Any = type(pipe)
    if hasattr(original, ORIGINAL):
        raise InputError("another guard is attached to this pipeline: detach it first")

    @wraps(original.__call__)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not pipe:  # made from the guarded one's class, e.g. by type(pipe)(**pipe.components)
            return original.__call__(self, *args, **kwargs)
        return handler(original.__call__, args, kwargs)

    def reduced(self: Any, protocol: Any) -> Any:
        make, arguments, *rest = original.__reduce_ex__(self, protocol)
        make = blank if make.__name__ == "__newobj__" else make  # pickle compares that one's class with the object's
        return make, tuple(original if part is type(self) else part for part in arguments), *rest

    members = {
        "__call__": guarded,
        "__reduce_ex__": reduced,
        "__doc__": original.__doc__,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        ORIGINAL: original,
        _HANDLER: handler,
    }
    pipe.__class__ = type(original.__name__, (original,), members)


def blank(kind: type, *arguments: Any) -> Any:
    """Returns a new object of a class, before anything is put into it."""
    return kind.__new__(kind, *arguments)


def detach(pipe: Any, handler: Handler) -> None:
    """Gives the object its own class back; does nothing unless this handler is attached."""
    members = vars(type(pipe))
    if members.get(_HANDLER) == handler:
        pipe.__class__ = members[ORIGINAL]
