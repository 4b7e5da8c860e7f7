"""A folder in which a long run keeps what is done: for one process at a time, and resumed only as the same run."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

LOCK = ".lock"
_WORDS = {
    "input": "the input's content",
    "model": "the model",
    "model_files": "the model's files",
    "calibration": "the calibration",
    "calibration_file": "the calibration's file",
}
_DIGEST = re.compile("[0-9a-f]{16,}")  # says nothing to people


@contextmanager
def locked(folder: Path, what: str = "audit", instead: str = "another --out") -> Iterator[None]:
    """Returns a context that holds a folder for this process.

    Messages call the work `what`, and say what to give `instead`.

    The lock ends with the process, whatever ends it; the file may stay.

    Raises:
        InputError: Another process holds it, or it cannot be written to.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(folder / LOCK, error) from error
    try:
        if not _taken(handle):
            raise InputError(
                f"another {what} is writing to {folder}: wait for its end and give the same command, or give {instead}"
            )
        yield
    finally:
        os.close(handle)  # and with it the lock


def _taken(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks must not forbid to work
    return True


def refuse(folder: Path, there: dict[str, Any], now: dict[str, Any], what: str = "an audit") -> None:
    """Raises InputError, telling the difference, unless both are equal; `what` is what messages say a folder holds."""
    names = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    if names:
        raise InputError(
            f"{folder} holds {what} with other settings ({'; '.join(_differences(names, there, now))}): "
            "give the same ones to go on with it, or another --out to start anew"
        )


def unwritable(path: Path, error: OSError) -> InputError:
    """Returns the error, in one line, for a file that cannot be written."""
    return InputError(
        f"{path} cannot be written ({error.strerror or error}): free disk space or make it writable; what is finished "
        "is kept, and the same command goes on from there"
    )


def _differences(names: Iterable[str], there: dict[str, Any], now: dict[str, Any]) -> Iterable[str]:
    for name in names:
        before, after = there.get(name), now.get(name)
        if any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (before, after)):
            yield f"{_WORDS.get(name, name)} changed"
        else:
            yield f"{_WORDS.get(name, name)}: {_shown(before)} then, {_shown(after)} now"


def _shown(value: object) -> str:
    return "the default" if value is None else json.dumps(value) if not isinstance(value, str) else value
