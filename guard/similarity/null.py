"""How alike unrelated references are: each of many against the others, so that a p-value can be stated.

A reference is left out and looked for among the others as if it were a picture in question; variants of it, by fixed
limits, are left out with it. A picture that is no more related to the references than they are to each other then gets
a p-value of alpha or less with a probability of alpha at most, whatever the references are (a conformal p-value; Vovk
et al. 2005). That the whole folder was searched, by several tests, is part of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_file
from ..progress import Progress
from ..strict_json import read_object
from .index import ReferenceIndex
from .search import AT_ONCE, NOTHING, TESTS, WEIGHTS, Candidate, search

MOST = 1000  # references that are left out in turn
FILE, SCHEMA, LARGEST = "unrelated.json", "cryptomnesia/unrelated-references/1", 16 << 20


@dataclass(frozen=True)
class Null:
    """Scores of unrelated references.

    Attributes:
        scores: (M, tests) of the nearest unrelated reference of each of M, higher = more alike.
    """

    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def smallest(self) -> float:
        """The smallest p-value that can be stated."""
        return 1 / (len(self) + 1)

    def ranks(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns by test how many of the M and the picture itself are at least as alike, (..., tests)."""
        found = np.empty(scores.shape, np.int64)
        for test in range(scores.shape[-1]):
            known = np.sort(self.scores[:, test])
            found[..., test] = 1 + len(known) - np.searchsorted(known, scores[..., test], side="left")
        return np.where(np.isneginf(scores), len(self) + 1, found)

    def p_value(self, scores: Mapping[str, float]) -> float | None:
        """Returns the p-value of a candidate by its scores; None where nothing is known of unrelated references."""
        if not len(self):
            return None
        mine = np.array([scores[test] for test in TESTS])
        # each test has its chance of being alike by accident, and so have those of the others: all M + 1 are ranked
        # together, so that none of them stands out by how it is counted
        among = self._ranks + (mine >= self.scores) * np.isfinite(self.scores)
        others = (among / WEIGHTS).min(1)
        return float((1 + (others <= (self.ranks(mine) / WEIGHTS).min()).sum()) / (len(self) + 1))

    def ahead(self, scores: Mapping[str, float], test: str) -> bool:
        """Returns whether a candidate is more alike than every unrelated reference, by one test."""
        known = self.scores[:, TESTS.index(test)]
        return not len(known) or scores[test] > known.max()

    def says(self, scores: Mapping[str, float]) -> str:
        """Returns the test by which a candidate is most alike."""
        return TESTS[int((self.ranks(np.array([scores[test] for test in TESTS])) / WEIGHTS).argmin())]

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """Of the M among themselves; 1 = the most alike."""
        return np.minimum(self.ranks(self.scores) - 1, len(self) + 1)


def best(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Returns by test the highest score among candidates, (tests,)."""
    return np.array([max((one.scores[test] for one in candidates), default=NOTHING) for test in TESTS])


def unrelated(index: ReferenceIndex, store: Path | None = None, progress: Progress | None = None) -> Null:
    """Returns scores of unrelated references: of all, or of MOST that are drawn by a fixed seed.

    Args:
        index: The references.
        store: A folder in which they are kept, for the same references.
        progress: Called with the numbers of references done and of all.
    """
    if FILE in index.kept:
        return index.kept[FILE]
    known = None if store is None else _read(store / FILE, index)
    index.kept[FILE] = known if known is not None else _measured(index, progress)
    if store is not None and known is None:
        _write(store / FILE, index, index.kept[FILE])
    return index.kept[FILE]


def _measured(index: ReferenceIndex, progress: Progress | None) -> Null:
    total = len(index)
    if total < 2:
        return Null(np.zeros((0, len(TESTS))))
    numbers = np.arange(total)
    if total > MOST:
        numbers = np.sort(np.random.default_rng(0).choice(total, MOST, replace=False))
    found: list[NDArray[np.float64]] = []
    for start in range(0, len(numbers), AT_ONCE):
        part = numbers[start : start + AT_ONCE].tolist()
        rows = [index.row(number) for number in part]
        for candidates in search(index, rows, without=part):
            found.append(best(candidates))
            if progress:
                progress(len(found), len(numbers))
    return Null(np.array(found))


def _write(file: Path, index: ReferenceIndex, null: Null) -> None:
    scores = [[None if np.isneginf(value) else value for value in row] for row in null.scores.tolist()]
    document = {"schema": SCHEMA, "of": index.identity, "scores": scores}
    write_file(file, json.dumps(document).encode(), "file of unrelated references")


def _read(file: Path, index: ReferenceIndex) -> Null | None:
    if not file.exists():
        return None
    document = read_object(file, LARGEST, "file of unrelated references", "remove it to measure again")
    if document.get("schema") != SCHEMA or document.get("of") != index.identity:
        return None
    try:
        rows = [[NOTHING if value is None else float(value) for value in row] for row in document["scores"]]
        return Null(np.array(rows, np.float64).reshape(-1, len(TESTS)))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged: remove it to measure again") from error
