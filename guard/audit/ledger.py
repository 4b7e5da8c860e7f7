"""parts.jsonl: which rows each part of a run holds, and the digests of its files, so that no other takes its place."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError
from ..files import read_regular
from ..strict_json import parse_json

FILE = "parts.jsonl"
RESULTS, REJECTS = "results", "rejects"
_MOST = 1 << 30  # bytes


@dataclass(frozen=True)
class Entry:
    """One part of a run.

    Attributes:
        part: The part's number.
        first, last: Numbers of its first and last row.
        results, rejects: SHA-256 of its files, in hex; None where it has no rejects.
    """

    part: int
    first: int
    last: int
    results: str
    rejects: str | None

    def there(self, folder: Path) -> bool:
        """Returns whether its results are in the folder of a run.

        Raises:
            InputError: The results, or the rejects, are not what was written.
        """
        for kind, digest in ((REJECTS, self.rejects), (RESULTS, self.results)):
            path = folder / kind / part_name(self.part)
            if digest is None:
                continue
            try:
                written = digest_of(read_regular(path, _MOST))
            except FileNotFoundError:
                if kind == RESULTS or not (folder / RESULTS / part_name(self.part)).exists():
                    return False
                written = None
            except (OSError, ValueError) as error:
                raise InputError(f"{path} cannot be read ({error}): make it readable, or remove it") from error
            if written != digest:
                results = folder / RESULTS / part_name(self.part)
                raise InputError(
                    f"{path} is damaged, or was overwritten by another: remove {results} and run the same audit again "
                    f"to measure rows {self.first} to {self.last} anew"
                )
        return True


def read_ledger(folder: Path) -> dict[int, Entry]:
    """Returns the latest entry of each part; a line that was cut off belongs to a part that was never written.

    Raises InputError if it cannot be read.
    """
    try:
        lines = read_regular(folder / FILE, _MOST).split(b"\n")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / FILE} cannot be read ({error}): make it readable, or give another --out"
        ) from error
    entries = {}
    for line in lines:
        try:
            entry = Entry(**parse_json(line))
        except (ValueError, TypeError):
            continue
        entries[entry.part] = entry
    return entries


def write_entry(folder: Path, entry: Entry) -> None:
    """Adds an entry, which is on disk when this returns; to be called before its part is written. Raises OSError."""
    handle = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        # begun with a line end, since the line before may have been cut off
        os.write(handle, b"\n" + json.dumps(asdict(entry)).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(data: bytes) -> str:
    """Returns the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def part_name(part: int) -> str:
    """Returns the file name of a part."""
    return f"part-{part:06d}.parquet"
