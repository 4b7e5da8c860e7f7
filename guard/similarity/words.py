"""Finds the references that share local features with a picture, among millions: by words, then by all bits.

A word is some of a feature's bits; features of one word are compared in all bits, as in Hamming embedding (Jegou et al.
2008). Which bits make a word is fixed, so that the same pictures give the same answer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..image_codes import count
from .local import Bits, Features
from .shards import Shard

TABLES, LENGTH = 4, 16  # words of a feature, and bits of each
NEAR = 28  # bits that features of one word may differ
MOST_OF_A_WORD = 1024  # features; words of more say nothing
AT_ONCE = 1 << 20  # pairs
_CHOSEN = np.random.default_rng(20081).permutation(128)[: TABLES * LENGTH].reshape(TABLES, LENGTH)


class Words:
    """Features of many references, by their words.

    Args:
        parts: Numbers of references (N,), their rows in a shard (N,), and the shard.
    """

    def __init__(self, parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], Shard]]):
        bits, owners = [], []
        for numbers, rows, shard in parts:
            owner = np.full(len(shard), -1, np.int32)
            owner[rows] = numbers
            per_feature = np.repeat(owner, np.diff(shard.starts))
            kept = per_feature >= 0
            bits.append(shard.bits if kept.all() else shard.bits[kept])
            owners.append(per_feature[kept])
        self._bits = bits  # mapped, not read
        self._owners: Any = np.concatenate(owners) if owners else np.zeros(0, np.int32)
        self._starts = np.cumsum([0, *(len(part) for part in bits)])
        self._order, self._offsets = [], []
        for table in range(TABLES):
            words = np.concatenate([_words(part, table) for part in bits]) if bits else np.zeros(0, np.uint16)
            self._order.append(np.argsort(words, kind="stable").astype(np.int32))
            self._offsets.append(np.concatenate([[0], np.cumsum(np.bincount(words, minlength=1 << LENGTH))]))

    def votes(self, features: Features, references: int) -> NDArray[np.int64]:
        """Returns how many features each of so many references has in common with a picture, (references,)."""
        votes = np.zeros(references, np.int64)
        for table in range(TABLES):
            words = _words(features.bits, table).astype(np.int64)
            first, last = self._offsets[table][words], self._offsets[table][words + 1]
            lengths = np.where(last - first > MOST_OF_A_WORD, 0, last - first)
            ends = np.cumsum(lengths)
            begin = 0
            while begin < len(words):  # so many words that their pairs are bounded
                end = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + AT_ONCE)))
                part = slice(begin, end)
                mine = np.repeat(np.arange(begin, min(end, len(words))), lengths[part])
                inner = np.arange(len(mine)) - np.repeat(np.cumsum(lengths[part]) - lengths[part], lengths[part])
                theirs = self._order[table][np.repeat(first[part], lengths[part]) + inner]
                far = count(self._of(theirs) ^ features.bits[mine]).sum(1)
                near = far <= NEAR
                # a feature votes once for a reference, however many of its are alike
                pairs = np.unique(mine[near].astype(np.int64) * references + self._owners[theirs[near]])
                votes += np.bincount(pairs % references, minlength=references)
                begin = end
        return votes

    def _of(self, numbers: NDArray[np.int32]) -> Bits:
        if len(self._bits) == 1:
            return self._bits[0][numbers]
        found = np.empty((len(numbers), self._bits[0].shape[1]), np.uint64)
        where = np.searchsorted(self._starts, numbers, side="right") - 1
        for part in np.unique(where):
            inside = where == part
            found[inside] = self._bits[part][numbers[inside] - self._starts[part]]
        return found


def _words(bits: Any, table: int) -> NDArray[np.uint16]:
    """The words of features (F, 2), (F,) uint16, some at a time."""
    words = np.zeros(len(bits), np.uint16)
    for start in range(0, len(bits), 1 << 18):
        part = np.ascontiguousarray(bits[start : start + (1 << 18)])
        octets = part.view(np.uint8).reshape(len(part), 16)
        for place, bit in enumerate(_CHOSEN[table]):
            words[start : start + len(part)] |= ((octets[:, bit // 8] >> (7 - bit % 8)) & 1).astype(np.uint16) << place
    return words
