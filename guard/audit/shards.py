"""Results in Parquet files of consecutive rows, each there as a whole or not at all.

Part k holds rows k * PART to (k + 1) * PART - 1 of the input, those that were measured in results/ and the others in
rejects/. A part counts as finished once its file in results/ is there, which is written last. So whatever stops a run,
no row is lost or doubled.
"""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, require
from ..files import remove, write_atomically
from .rows import PART, Done, Reject, Row

RESULTS, REJECTS = "results", "rejects"


class Shards:
    """The finished parts of a run, and those under way.

    Args:
        folder: Of the run.
        schema: Of a record.
        total: Rows of the input.

    Raises:
        InputError: The folder cannot be written to.
    """

    def __init__(self, folder: Path, schema: Any, total: int):
        self.folder, self.schema, self.total = folder, schema, total
        for name in (RESULTS, REJECTS):
            try:
                (folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder / name, error) from error
        names = {file.name for file in (folder / RESULTS).iterdir()}
        self.finished = {part for part in range(-(-total // PART)) if part_name(part) in names}
        self._open: dict[int, Done] = {}

    @property
    def rows_finished(self) -> int:
        """Rows in finished parts."""
        return sum(self._rows(part) for part in self.finished)

    def missing(self, rows: Iterable[Row | Reject], size: int) -> Iterator[list[Row | Reject]]:
        """Batches of at most `size` of the rows that no finished part holds; no batch spans two parts."""
        batch: list[Row | Reject] = []
        for row in rows:
            if row.row >= self.total or row.row // PART in self.finished:
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

    def _rows(self, part: int) -> int:
        return min(PART, self.total - part * PART)

    def _write(self, part: int, done: Done) -> None:
        arrow = require("pyarrow", "audit")
        beside = self.folder / REJECTS / part_name(part)
        place = self.folder / RESULTS / part_name(part)
        try:
            if done.rejects:
                rejects = [reject._asdict() for reject in sorted(done.rejects)]
                write_atomically(beside, _encoded(arrow.Table.from_pylist(rejects, reject_schema())))
                _sync(beside.parent)
            else:
                remove(beside)  # of an attempt that was cut off
            records = sorted(done.records, key=lambda record: record["row"])
            write_atomically(place, _encoded(arrow.Table.from_pylist(records, self.schema)))
        except OSError as error:
            raise unwritable(place, error) from error
        self.finished.add(part)


def part_name(part: int) -> str:
    """The file name of a part."""
    return f"part-{part:06d}.parquet"


def reject_schema() -> Any:
    """Columns of the parts in rejects/."""
    arrow = require("pyarrow", "audit")
    return arrow.schema([("row", arrow.int64()), ("reason", arrow.string()), ("excerpt", arrow.string())])


def unwritable(path: Path, error: OSError) -> InputError:
    """One line on a file that cannot be written."""
    return InputError(
        f"{path} cannot be written ({error.strerror or error}): make room or mend that; what is finished is kept, and "
        "the same command goes on from there"
    )


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
