"""Reads what a run has written so far: columns of numbers and of words as arrays, texts one after the other."""

import re
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, require
from ..strict_json import read_object
from .ledger import REJECTS, RESULTS, part_name, read_ledger
from .manifest import FILE, LARGEST, SCHEMA
from .rows import Reject

TEXTS = {"prompts": "prompt", "images": "path"}  # by the kind of run
COLUMNS = {
    "prompts": ("row", "score", "p_value", "verdict"),
    "images": (
        *("row", "sidecar", "file", "pixels", "c2pa", "claimed_verdict", "made_by", "made_by_probability"),
        *("made_by_p_value", "nearest_signature", "signature_distance", "note"),
    ),
}
_DIGITS = re.compile(r"\d+")
NOTHING = "–"


@dataclass(frozen=True)
class Words:
    """A column that holds few different words; codes (N,) are numbers of words, and -1 where there is none."""

    codes: NDArray[np.int64]
    words: tuple[str, ...]

    def __getitem__(self, order: NDArray[np.int64]) -> "Words":
        """Returns the words of the rows of these numbers, in their order."""
        return Words(self.codes[order], self.words)

    def complete(self) -> tuple[list[str], NDArray[np.int64]]:
        """Returns words in the order in which they appear, with one for rows that have none, and their codes (N,)."""
        present, first, which = np.unique(self.codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        words = [NOTHING if code < 0 else self.words[code] for code in present[order].tolist()]
        return words, np.argsort(order)[which]

    def where(self, *wanted: str) -> NDArray[np.bool_]:
        """Returns (N,) bool: which rows hold one of these words."""
        return np.isin(self.codes, [i for i, word in enumerate(self.words) if word in wanted])

    def counts(self) -> dict[str, int]:
        """Returns how many rows hold each word."""
        totals = np.bincount(self.codes[self.codes >= 0], minlength=len(self.words))
        return {word: int(total) for word, total in zip(self.words, totals, strict=True)}


class Results:
    """The finished part of a run.

    Args:
        folder: The folder that the audit wrote to.

    Raises:
        InputError: There is no run in it, or not of this version, or a part is not what was written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / FILE).exists():
            raise InputError(f"{folder} holds no audit ({FILE} is not there): give the --out of one")
        self.run = read_object(folder / FILE, LARGEST, "audit", "give the --out of one")
        if self.run.get("schema") != SCHEMA or self.run.get("kind") not in COLUMNS:
            raise InputError(
                f"{folder / FILE} is of no version that this one knows: make the report with the one it is of"
            )
        self.kind: str = self.run["kind"]
        ledger = read_ledger(folder)
        there = {part: ledger[part].there(folder) for part in sorted(ledger)}
        if self.run.get("finished") and not all(there.values()):
            raise InputError(f"{folder / RESULTS} lacks a part of this audit: run the same one again to fill the gap")
        self.parts = [folder / RESULTS / part_name(part) for part in there if there[part]]

    @cached_property
    def columns(self) -> dict[str, "NDArray[np.float64] | Words"]:
        """The columns that a report shows beside the texts, by name; missing numbers are NaN."""
        numbers: defaultdict[str, list[NDArray[np.float64]]] = defaultdict(list)
        codes: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        words: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for part in self.parts:
            table = self._read(part, COLUMNS[self.kind])
            for name, column in zip(table.column_names, table.columns, strict=True):
                if str(column.type) == "string":
                    known = words[name]
                    for word in column.to_pylist():
                        codes[name].append(-1 if word is None else known.setdefault(word, len(known)))
                else:
                    numbers[name].append(column.to_numpy().astype(np.float64))
        texts = {name: Words(np.array(codes[name], np.int64), tuple(words[name])) for name in codes}
        return {**texts, **{name: np.concatenate(parts) for name, parts in numbers.items()}}

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Returns one column, (N,) float64; NaN where it has no value, or where there is no such column."""
        column = self.columns.get(name)
        return column if isinstance(column, np.ndarray) else np.full(len(self), np.nan)

    def words(self, name: str) -> Words:
        """Returns one column of words; without any where there is no such column."""
        column = self.columns.get(name)
        return column if isinstance(column, Words) else Words(np.full(len(self), -1), ())

    def __len__(self) -> int:
        first = self.columns.get("row")
        return len(first) if isinstance(first, np.ndarray) else 0

    def texts(self) -> Iterator[str]:
        """Yields prompts or paths in the order of the columns' rows; one part is held at a time."""
        for part in self.parts:
            yield from self._read(part, [TEXTS[self.kind]]).column(0).to_pylist()

    def rejects(self) -> Iterator[Reject]:
        """Yields the rows that could not be measured; one part is held at a time."""
        for part in self.parts:  # others are of an attempt that was cut off
            beside = self.folder / REJECTS / part.name
            if beside.exists():
                yield from (Reject(**row) for row in self._read(beside, list(Reject._fields)).to_pylist())

    def _read(self, part: Path, columns: Sequence[str]) -> Any:
        """A table of those of the columns that are there."""
        arrow, parquet = require("pyarrow", "audit"), require("pyarrow.parquet", "audit")
        try:
            with parquet.ParquetFile(part) as file:
                return file.read([name for name in columns if name in file.schema_arrow.names], use_threads=False)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{part} is damaged: remove it and run the same audit again to fill the gap") from error


def reasons(rejects: Iterable[Reject], examples: int) -> tuple[dict[str, int], list[Reject]]:
    """Returns how often each reason was given, most often first, and the first `examples` of the rejects.

    Reasons that differ in their numbers only are one, in the words of the first.
    """
    counts: Counter[str] = Counter()
    words: dict[str, str] = {}
    first: list[Reject] = []
    for reject in rejects:
        counts[words.setdefault(_DIGITS.sub("0", reject.reason), reject.reason)] += 1
        if len(first) < examples:
            first.append(reject)
    return dict(counts.most_common()), first


class Spool:
    """Texts in a temporary file, to be read in any order without holding them."""

    def __init__(self, texts: Iterable[str]):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._ends = array("q", [0])
        for text in texts:
            data = text.encode()
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        start, end = self._ends[i : i + 2]
        self._file.seek(start)
        return self._file.read(end - start).decode()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
