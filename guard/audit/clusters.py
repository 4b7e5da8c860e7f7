"""Near-identical texts of a long list, each put with the first one that it resembles, in close to linear time.

A text is the set of its words and pairs of neighbouring words, without case and punctuation; two texts are
near-identical if these sets have a Jaccard index of at least 0.7, which one changed word in ten or so leaves.
Candidates come from MinHash signatures cut into bands (Broder 1997; Indyk & Motwani 1998); each is then compared
exactly.
"""

import random
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice, pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.7  # Jaccard index
BANDS, DEPTH = 20, 4  # finds 99.6 % of pairs at 0.7, 99.99 % at 0.8
WORDS = 400  # of a text; encoders read fewer
BATCH = 2_000  # texts hashed at a time
_CJK = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: every character is a word
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")

Shingles = NDArray[np.uint32]


def shingles(text: str) -> Shingles:
    """Returns the sorted 32-bit hashes of a text's words and pairs of neighbouring words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # a text without words is what it is
    words = [match.group() for match in islice(_WORD.finditer(folded), WORDS)] or [folded]
    parts = words + [f"{a} {b}" for a, b in pairwise(words)]
    return np.array(sorted({crc32(part.encode("utf-8", "surrogatepass")) for part in parts}), np.uint32)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Returns the share of two sets, sorted and not empty, that they have in common, in [0, 1]; 1 = the same."""
    shared = int(np.count_nonzero(b.take(b.searchsorted(a), mode="clip") == a))
    return shared / (len(a) + len(b) - shared)


def first_alike(texts: Iterable[str]) -> NDArray[np.int64]:
    """Finds for each text the one that represents it: the closest earlier one that represents itself.

    A text that is near-identical to none before it represents itself. Every text is near-identical to the one that
    represents it; now and then (see BANDS) a pair is missed. The answer depends on the texts and their order alone.

    Args:
        texts: N texts, read once; the most interesting first, since those represent others.

    Returns:
        (N,) int64: the number of the text that represents text i, at most i.
    """
    sets, bands, which = _collect(texts)
    if not len(which):
        return which
    leaders = _leaders(sets, _firsts(bands))
    # sets are numbered as they appear, so the first text of each set comes first
    _, first_text = np.unique(which, return_index=True)
    return first_text[leaders[which]].astype(np.int64)


@dataclass(frozen=True)
class Sets:
    """Many sets of shingles in one array; set i is values[starts[i] : starts[i + 1]]."""

    values: Shingles
    starts: NDArray[np.int64]

    def __getitem__(self, i: int) -> Shingles:
        return self.values[self.starts[i] : self.starts[i + 1]]


def _collect(texts: Iterable[str]) -> tuple[Sets, NDArray[np.uint32], NDArray[np.int64]]:
    """The different sets of shingles, their bands, and the number of each text's set."""
    numbers: dict[bytes, int] = {}  # of each set, by its digest
    which, sizes = array("q"), array("q", [0])
    values, bands = [np.zeros(0, np.uint32)], [np.zeros((0, BANDS), np.uint32)]
    for batch in _batches(texts):
        fresh: list[Shingles] = []
        for hashes in map(shingles, batch):
            number = numbers.setdefault(blake2b(hashes.tobytes(), digest_size=16).digest(), len(numbers))
            if number == len(sizes) - 1:
                sizes.append(len(hashes))
                fresh.append(hashes)
            which.append(number)
        if fresh:
            values.append(np.concatenate(fresh))
            bands.append(_bands(values[-1], np.cumsum([0, *(len(hashes) for hashes in fresh[:-1])])))
    sets = Sets(np.concatenate(values), np.cumsum(sizes))
    return sets, np.concatenate(bands), np.array(which, np.int64)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _bands(values: Shingles, starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(N, BANDS): two sets agree in a band with probability J ** DEPTH."""
    wide = values.astype(np.uint64)
    draw = random.Random(0)
    bands = np.empty((len(starts), BANDS), np.uint32)
    for band in range(BANDS):
        mixed = np.zeros(len(starts), np.uint64)
        for _ in range(DEPTH):
            # multiply-shift hashing (Dietzfelbinger et al. 1997); numpy's uint64 wraps around as it should
            factor, offset = np.uint64(draw.getrandbits(64) | 1), np.uint64(draw.getrandbits(64))
            least = np.minimum.reduceat((wide * factor + offset) >> np.uint64(32), starts)
            mixed = (mixed ^ least) * np.uint64(0x9E3779B97F4A7C15)
        bands[:, band] = mixed >> np.uint64(32)
    return bands


def _firsts(bands: NDArray[np.uint32]) -> NDArray[np.int32]:
    """(N, BANDS): for each set and band the first set that agrees with it there."""
    columns = []
    for band in bands.T:
        _, first, which = np.unique(band, return_index=True, return_inverse=True)
        columns.append(first[which].astype(np.int32))
    return np.stack(columns, axis=1)


def _leaders(sets: Sets, firsts: NDArray[np.int32]) -> NDArray[np.int64]:
    """(N,): for each set the one that represents it."""
    leaders = np.arange(len(firsts))
    for i in np.flatnonzero((firsts < leaders[:, None]).any(1)).tolist():
        best = ALIKE
        # ascending, so that the earliest of equals is kept
        for leader in sorted({int(leaders[first]) for first in firsts[i] if first < i}):
            alike = jaccard(sets[i], sets[leader])
            if alike > best or (alike == best and leaders[i] == i):
                best, leaders[i] = alike, leader
    return leaders
