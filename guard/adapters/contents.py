"""What Python values do, as one digest: functions by their code and all that it reads, objects by what they hold.

Two patches with other strengths, tensors or code differ; a value that cannot be read differs from everything, itself
at another time included, so that nothing is taken for equal that may not be.
"""

import dis
import enum
import functools
import hashlib
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.Size, PurePath, enum.Enum)
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.ModuleType)
_GLOBALS = (bool, int, float, complex, str, torch.Tensor)
_WHOLE = 1 << 22  # values of a tensor that are all read; of a larger one as many, evenly spaced
_IDLE = frozenset({"training", "_is_full_backward_hook", "_non_persistent_buffers_set", "_backward_hooks"})


class Contents:
    """Reads values, one after the other.

    Args:
        special: Gives a text for values that are to be read in another way, e.g. the model itself; else None.

    Attributes:
        unreadable: Names of what could not be read.
    """

    def __init__(self, special: Callable[[Any], str | None] = lambda value: None):
        self.special = special
        self.unreadable: list[str] = []

    def digest(self, value: Any) -> str:
        """Returns the SHA-256 of a value's contents, in hex."""
        hasher = hashlib.sha256()
        seen: dict[int, tuple[int, Any]] = {}  # with the values, whose ids would be used again
        try:
            for piece in self._pieces(value, seen):
                hasher.update(piece.encode("utf-8", "surrogatepass") + b"\0")
        except RecursionError:  # nested too deep
            hasher.update(self._unreadable(value).encode())
        return hasher.hexdigest()

    def _pieces(self, value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
        if isinstance(value, _ATOMS):
            yield f"{type(value).__name__} {value!r}"
        elif isinstance(value, torch.device):
            yield "device"  # the same model on another one
        elif id(value) in seen:
            yield f"again {seen[id(value)][0]}"
        else:
            seen[id(value)] = len(seen), value
            named = self.special(value)
            if named is not None:
                yield named
            else:
                yield from self._read(value, seen)

    def _read(self, value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
        if isinstance(value, torch.Tensor):
            yield self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic):
            array = np.ascontiguousarray(value)
            yield f"array {array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        elif isinstance(value, Mapping):
            yield f"mapping {len(value)}"
            for key, part in sorted(value.items(), key=lambda item: (str(type(item[0])), str(item[0]))):
                yield from self._pieces(key, seen)
                yield from self._pieces(part, seen)
        elif isinstance(value, list | tuple):
            yield f"sequence {len(value)}"
            for part in value:
                yield from self._pieces(part, seen)
        elif isinstance(value, set | frozenset):
            yield from sorted(self.digest(part) for part in value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, seen)
        elif isinstance(value, types.MethodType):
            yield f"method {value.__func__.__qualname__}"
            yield from self._pieces(value.__self__, seen)
            yield from self._pieces(value.__func__, seen)
        elif isinstance(value, functools.partial):
            yield from self._pieces((value.func, value.args, value.keywords), seen)
        elif isinstance(value, type):
            yield from self._class(value, seen)
        elif isinstance(value, _BUILTIN):
            yield f"builtin {getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
        else:
            yield from self._object(value, seen)

    def _function(self, function: types.FunctionType, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
        code = function.__code__
        yield f"function {function.__module__} {function.__qualname__}"
        yield from _code(code)
        yield from self._pieces((function.__defaults__, function.__kwdefaults__, vars(function)), seen)
        written = _written(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield name
            try:
                held = cell.cell_contents
            except ValueError:  # not set yet
                continue
            # what the function itself keeps from one call to the next is no setting of it
            if not (name in written and (held is None or isinstance(held, torch.Tensor))):
                yield from self._pieces(held, seen)
        for name in sorted(_names(code)):
            held = function.__globals__.get(name)
            if isinstance(held, _GLOBALS) and not name.startswith("__"):
                yield name
                yield from self._pieces(held, seen)

    def _class(self, kind: type, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
        for base in kind.__mro__:
            yield f"class {base.__module__} {base.__qualname__}"
            if "<locals>" in base.__qualname__:  # its functions may close over settings
                own = {name: part for name, part in vars(base).items() if isinstance(part, types.FunctionType)}
                yield from self._pieces(own, seen)

    def _object(self, value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
        names = [name for base in type(value).__mro__ for name in _slots(base)]
        held = {name: getattr(value, name) for name in names if hasattr(value, name)}
        held |= getattr(value, "__dict__", {})
        if not held and not (hasattr(value, "__dict__") or names):
            yield self._unreadable(value)
            return
        yield from self._class(type(value), seen)
        if isinstance(value, torch.nn.Module):
            held = {name: _unnumbered(part) for name, part in held.items() if name not in _IDLE and not _is_empty(part)}
        yield from self._pieces(held, seen)

    def _tensor(self, tensor: torch.Tensor) -> str:
        try:
            flat = tensor.detach().reshape(-1)
            values = flat[:: max(1, flat.numel() // _WHOLE)].cpu().contiguous().view(torch.uint8).numpy().tobytes()
        except (RuntimeError, TypeError, NotImplementedError):  # without memory, sparse, quantised
            return self._unreadable(tensor)
        return f"tensor {tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(values).hexdigest()}"

    def _unreadable(self, value: Any) -> str:
        self.unreadable.append(type(value).__qualname__)
        return uuid.uuid4().hex


def _code(code: types.CodeType) -> Iterator[str]:
    """What code does, wherever it stands."""
    yield f"{code.co_code.hex()} {code.co_names} {code.co_argcount} {code.co_flags}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield str(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant)


def _names(code: types.CodeType) -> set[str]:
    """Names that the code, and functions inside of it, may look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_names(part) for part in inner))


def _written(code: types.CodeType) -> set[str]:
    """Variables of an outer function that the code sets."""
    return {str(step.argval) for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (
        (slots,) if isinstance(slots, str) else tuple(name for name in slots if name not in ("__dict__", "__weakref__"))
    )


def _unnumbered(value: Any) -> Any:
    """Hooks of a module without their numbers, which count all hooks of the process."""
    numbered = isinstance(value, Mapping) and all(isinstance(key, int) for key in value)
    return list(value.values()) if numbered else value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and not value)
