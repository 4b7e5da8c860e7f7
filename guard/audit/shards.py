"""Results in Parquet files of consecutive rows, each there as a whole or not at all.

Part k holds rows k * PART to (k + 1) * PART - 1 of the input, those that were measured in results/ and the others in
rejects/. A part counts as finished once its file in results/ is there, which is written last, as the ledger says that
it is. What was measured of other parts is kept beside them every few seconds. So whatever stops a run, no row is
doubled, and hardly any lost.
"""

import io
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import require
from ..files import remove, write_atomically
from ..run_folder import unwritable
from ..strict_json import read_json
from .ledger import REJECTS, RESULTS, Entry, digest_of, part_name, read_ledger, write_entry
from .rows import PART, Done, Reject, Row

UNDER_WAY = "under-way.json"
FLUSH = 5.0  # seconds
_MOST = 1 << 30  # bytes


class Shards:
    """The finished parts of a run, and those under way.

    Args:
        folder: The run's folder.
        schema: Columns of a record, a pyarrow schema.
        total: Number of rows of the input.

    Raises:
        InputError: The folder cannot be written to, or a part is not what was written.
    """

    def __init__(self, folder: Path, schema: Any, total: int):
        self.folder, self.schema, self.total = folder, schema, total
        for name in (RESULTS, REJECTS):
            try:
                (folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder / name, error) from error
        self.load()

    def load(self) -> None:
        """Looks at what is on disk now. Raises InputError if a part is not what was written."""
        ledger, parts = read_ledger(self.folder), range(-(-self.total // PART))
        self.finished = {part for part in parts if part in ledger and ledger[part].there(self.folder)}
        self._open = self._under_way()
        self._held = {row for done in self._open.values() for row in _rows_of(done)}
        self._flushed = time.monotonic()

    @property
    def rows_kept(self) -> int:
        """Number of rows in finished parts and in those under way."""
        return sum(self._rows(part) for part in self.finished) + sum(map(len, self._open.values()))

    def missing(self, rows: Iterable[Row | Reject], size: int) -> Iterator[list[Row | Reject]]:
        """Yields batches of at most `size` of the rows that are not kept yet; no batch spans two parts."""
        batch: list[Row | Reject] = []
        for row in rows:
            if row.row >= self.total or row.row // PART in self.finished or row.row in self._held:
                continue
            if batch and (len(batch) >= size or batch[-1].row // PART != row.row // PART):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def add(self, done: Done) -> None:
        """Keeps what became of some rows, and writes every part that is complete with them.

        Raises:
            InputError: The disk is full or cannot be written to.
        """
        touched = set()
        for record in done.records:
            touched.add(part := record["row"] // PART)
            self._open.setdefault(part, Done()).records.append(record)
        for reject in done.rejects:
            touched.add(part := reject.row // PART)
            self._open.setdefault(part, Done()).rejects.append(reject)
        for part in sorted(touched):
            if len(self._open[part]) == self._rows(part):
                self._write(part, self._open[part])
                del self._open[part]
        if time.monotonic() - self._flushed >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Writes what is known of parts that are under way. Raises InputError where that cannot be."""
        path = self.folder / UNDER_WAY
        records = [record for done in self._open.values() for record in done.records]
        rejects = [reject._asdict() for done in self._open.values() for reject in done.rejects]
        try:
            if records or rejects:
                write_atomically(path, json.dumps({"records": records, "rejects": rejects}).encode())
            else:
                remove(path)
        except OSError as error:
            raise unwritable(path, error) from error
        self._flushed = time.monotonic()

    def _under_way(self) -> dict[int, Done]:
        """What an earlier run knew of parts that are not finished; nothing if that cannot be read."""
        parts: dict[int, Done] = {}
        try:
            known = read_json(self.folder / UNDER_WAY, _MOST)
            for record in known["records"]:
                if set(record) <= set(self.schema.names):
                    parts.setdefault(record["row"] // PART, Done()).records.append(record)
            for reject in known["rejects"]:
                parts.setdefault(reject["row"] // PART, Done()).rejects.append(Reject(**reject))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}
        return {part: done for part, done in parts.items() if self._fits(part, done)}

    def _fits(self, part: int, done: Done) -> bool:
        rows = _rows_of(done)
        whole = set(range(part * PART, part * PART + self._rows(part)))
        return part not in self.finished and len(set(rows)) == len(rows) and set(rows) < whole

    def _rows(self, part: int) -> int:
        return min(PART, self.total - part * PART)

    def _write(self, part: int, done: Done) -> None:
        arrow = require("pyarrow", "audit")
        beside = self.folder / REJECTS / part_name(part)
        path = self.folder / RESULTS / part_name(part)
        rejects = [reject._asdict() for reject in sorted(done.rejects, key=lambda reject: reject.row)]
        records = sorted(done.records, key=lambda record: record["row"])
        rejected = _encoded(arrow.Table.from_pylist(rejects, reject_schema())) if rejects else None
        measured = _encoded(arrow.Table.from_pylist(records, self.schema))
        digests = digest_of(measured), None if rejected is None else digest_of(rejected)
        try:
            write_entry(self.folder, Entry(part, part * PART, part * PART + self._rows(part) - 1, *digests))
            if rejected is not None:
                write_atomically(beside, rejected)
                _sync(beside.parent)
            else:
                remove(beside)  # of an attempt that was cut off
            write_atomically(path, measured)
        except OSError as error:
            raise unwritable(path, error) from error
        self.finished.add(part)


def reject_schema() -> Any:
    """Returns the columns of the parts in rejects/, a pyarrow schema; the line is that of a text file, from 1."""
    arrow = require("pyarrow", "audit")
    texts = [("reason", arrow.string()), ("excerpt", arrow.string())]
    return arrow.schema([("row", arrow.int64()), *texts, ("line", arrow.int64())])


def _rows_of(done: Done) -> list[int]:
    return [record["row"] for record in done.records] + [reject.row for reject in done.rejects]


def _encoded(table: Any) -> bytes:
    buffer = io.BytesIO()
    require("pyarrow.parquet", "audit").write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _sync(folder: Path) -> None:
    """A rename is on disk only once its folder is; Windows knows no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
