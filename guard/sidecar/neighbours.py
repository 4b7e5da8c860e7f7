"""Files beside an image that its sidecar names as evidence: how much of them is read, and how they compare.

A sidecar comes from anyone, so what it can ask for is bounded: a file is read once, however often it is named.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import ABSENT, open_regular
from .digests import bytes_sha256

MOST_FILES = 100
MOST_BYTES = 256 << 20  # of all files together


def compared(folder: Path, evidence: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Compares the files that a sidecar names with their digests there.

    Args:
        folder: The image's folder.
        evidence: Entries with the name and the SHA-256 of a file.

    Returns:
        Name and state of each file, once; ("", "not checked") alone where there are too many. States are "same",
        "changed", "missing", "unreadable", and "not checked" for files that would take the total over 256 MiB.
    """
    if len(evidence) > MOST_FILES:
        return [("", "not checked")]
    wanted: dict[str, set[str]] = {}
    for entry in evidence:
        wanted.setdefault(entry["name"], set()).add(entry["sha256"])
    left, states = MOST_BYTES, []
    for name, digests in wanted.items():
        state, size = _compared(folder / name, digests, left)
        left -= size
        states.append((name, state))
    return states


def _compared(path: Path, digests: set[str], left: int) -> tuple[str, int]:
    """The file's state, and how many bytes were read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > left:
                return "not checked", 0
            data = file.read(size)
    except OSError as error:
        return "missing" if error.errno in ABSENT else "unreadable", 0
    except ValueError:
        return "unreadable", 0
    return "same" if digests == {bytes_sha256(data)} else "changed", size
