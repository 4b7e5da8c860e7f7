"""JSON from outside, read strictly: what readers could understand in two ways, or what stalls them, is refused."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import CryptomnesiaError, InputError
from .files import read_regular
from .printable import printable

DEPTH = 32


def read_json(path: Path, limit: int, depth: int = DEPTH, *, infinite: bool = False) -> Any:
    """Returns what a JSON file holds.

    Args:
        path: A regular file.
        limit: Most bytes that are read.
        depth: Most levels of nesting.
        infinite: See `parse_json`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger, no regular file, or not what `parse_json` takes; one line says why.
    """
    return parse_json(read_regular(path, limit), depth, infinite=infinite)


def read_object(
    path: Path,
    limit: int,
    what: str,
    remedy: str,
    *,
    error: type[CryptomnesiaError] = InputError,
    infinite: bool = False,
) -> dict[str, Any]:
    """Returns the one object that a JSON file holds.

    Args:
        path: A regular file.
        limit: Most bytes that are read.
        what: What messages call such a file, e.g. "config".
        remedy: What to do where it cannot be used, e.g. "get the folder again".
        error: The error that is raised, InputError by default.
        infinite: See `parse_json`.

    Raises:
        CryptomnesiaError: It cannot be read, `parse_json` refuses it, or it holds something else; of that kind.
    """
    try:
        document = read_json(path, limit, infinite=infinite)
        if not isinstance(document, dict):
            raise ValueError("it holds no JSON object")
    except OSError as why:
        raise error(f"the {what} {path} cannot be read: {why.strerror or why}: {remedy}") from why
    except ValueError as why:
        raise error(f"{path} is no {what} that can be read ({why}): {remedy}") from why
    return document


def parse_json(data: bytes | str, depth: int = DEPTH, *, infinite: bool = False) -> Any:
    """Returns what a JSON text says.

    Args:
        data: UTF-8, without a byte order mark.
        depth: Most levels of nesting.
        infinite: Let Infinity and -Infinity pass, which diffusers writes into the settings of some schedulers.

    Raises:
        ValueError: No UTF-8 or no JSON, a key twice, NaN, infinity or a number beyond a double, a lone surrogate, or
            deeper nesting; one line says which.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        constant = _infinite if infinite else _refuse
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=constant, parse_float=_finite)
        _require_depth(document, depth)
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"it is no UTF-8 text ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no valid JSON: {printable(error)}") from error
    return document


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")  # readers differ in which of the two they believe
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _infinite(name: str) -> float:
    return _refuse(name) if name == "NaN" else float(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _require_depth(document: Any, depth: int) -> None:
    level = [document]
    for _ in range(depth):
        level = [item for value in level for item in _children(value)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
