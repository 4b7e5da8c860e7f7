"""How much the nearest references are like a picture, by each of several tests; higher = more alike.

- `picture`: how near the nearest is as a whole, in units of how near the next ones lie.
- `grey`: the same without colours.
- `part`: local features that agree on one movement, less what several references have in common.
- `encoder`: as `picture`, by an encoder's vectors.

Flipped pictures are looked for as well. A test that cannot be made, or of which a picture says nothing, gives -inf.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import appearance, local
from .index import ReferenceIndex
from .shards import Row

TESTS = ("picture", "grey", "part", "encoder")
# Of the tests' chances to err: a reproduction is told by the picture as a whole; a user's encoder is trusted as much.
WEIGHTS = np.array([10.0, 2.0, 3.0, 10.0])
NOTHING = -np.inf
AT_ONCE = 64  # pictures
MOST = 5  # nearest by each test
MOST_ALIKE = appearance.LAST + 20  # that are looked at for how near others lie: variants are left out of them
VERIFIED, VOTES = 10, 3  # references whose features are matched, and how many they must have in common before
OTHERS = 5  # most matching references, after which the next tell what many have in common: a pattern, a frame
SAME, SAME_BITS = 0.08, 40  # distance and bits of copies that were only encoded, resized or brightened
# Matches of one movement that unlike photographs do not have, see docs/results.md. It decides where references are too
# few to tell; where they are many they may have patterns, figures or frames in common, and their own null decides.
SURE_PART = 20


@dataclass
class Candidate:
    """What is known of one reference beside a picture.

    Attributes:
        reference: Its number.
        scores: By test, higher = more alike.
        distance: Of the small copies, in [0, 2]; the smaller one of colour and grey.
        flipped: By test, whether it is alike when the picture is flipped.
        bits: In how many of 256 bits the image codes differ.
        movement: How the picture lies in the reference, after flipping; None unless local features tell.
    """

    reference: int
    scores: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TESTS, NOTHING))
    distance: float = 2.0
    flipped: dict[str, bool] = field(default_factory=dict)
    bits: int = appearance.BITS
    movement: local.Movement | None = None

    @property
    def same(self) -> bool:
        """Whether it is the same picture but for encoding, size and brightness, by fixed limits."""
        return self.distance <= SAME and self.bits <= SAME_BITS

    @property
    def shares_a_part(self) -> bool:
        """Whether a part is surely shared, by a fixed limit."""
        return self.movement is not None and self.movement.matches >= SURE_PART


def search(
    index: ReferenceIndex, rows: Sequence[Row], *, without: Sequence[int] | None = None
) -> Iterator[list[Candidate]]:
    """Finds the nearest references of pictures.

    Args:
        index: The references.
        rows: What the pictures look like.
        without: For each picture the number of a reference that it is itself: that one and its variants are left out,
            so that what remains is unrelated.

    Returns:
        For each picture, in turn, its candidates: the nearest by each test.
    """
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        own = [None] * len(part) if without is None else list(without[start : start + AT_ONCE])
        yield from _searched(index, part, own)


def _searched(index: ReferenceIndex, rows: Sequence[Row], own: Sequence[int | None]) -> Iterator[list[Candidate]]:
    copies = np.stack([row.copy for row in rows])
    wholes = _nearest(index, "copies", [_both(copies, 0), _both(copies, 1)], len(rows))
    vectors = np.stack([row.embedding for row in rows])
    encoded = _encoded(index, vectors) if vectors.shape[1] else None
    codes = np.concatenate([block for _, block in index.blocks("codes")])
    numbers = np.concatenate([found for found, _ in index.blocks("codes")])
    for place, row in enumerate(rows):
        bits = np.full(len(index), appearance.BITS, np.int64)
        bits[numbers] = appearance.code_distances(row.codes, codes)
        moved = list(_moved(index, row, own[place]))
        left_out = _variants(index, own[place], [of[place] for of in wholes], bits)
        found: dict[int, Candidate] = {}
        for test, of in zip(TESTS, wholes, strict=False):
            _add_near(found, of[place], left_out, test)
        if encoded is not None:
            _add_near(found, encoded[place], left_out, "encoder")
        _add_codes(found, bits, left_out)
        _add_parts(found, [one for one in moved if one[0] not in left_out])
        for one in found.values():
            one.bits = int(bits[one.reference])
        yield list(found.values())


@dataclass(frozen=True)
class _Near:
    """References by distance, nearest first: numbers, distances, and whether flipped."""

    numbers: NDArray[np.int64]
    distances: NDArray[np.float32]
    flipped: NDArray[np.bool_]


def _both(copies: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    """Vectors of pictures, and after them of the flipped ones; kind 0 in colour, 1 in grey."""
    return np.concatenate([appearance.vectors(copies)[kind], appearance.vectors(copies[:, :, ::-1])[kind]])


def _nearest(index: ReferenceIndex, name: str, queries: Sequence[NDArray[np.float32]], count: int) -> list[list[_Near]]:
    """For each kind of vectors, the nearest references of each picture."""
    found: list[list[list[tuple[NDArray, NDArray, NDArray]]]] = [[[] for _ in range(count)] for _ in queries]
    for numbers, block in index.blocks(name):
        for kind, others in enumerate(appearance.vectors(block)):
            _keep(found[kind], numbers, appearance.distances(queries[kind], others), count)
    return [[_merged(parts) for parts in of] for of in found]


def _encoded(index: ReferenceIndex, vectors: NDArray[np.float32]) -> list[_Near]:
    found: list[list[tuple[NDArray, NDArray, NDArray]]] = [[] for _ in vectors]
    queries = _directions(vectors)
    for numbers, block in index.blocks("embeddings"):
        _keep(found, numbers, appearance.distances(queries, _directions(block)), len(vectors))
    return [_merged(parts) for parts in found]


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _keep(
    found: list[list[tuple[NDArray, NDArray, NDArray]]],
    numbers: NDArray[np.int64],
    far: NDArray[np.float32],
    count: int,
) -> None:
    """Keeps the nearest of a block; `far` holds pictures, and after them flipped ones where there are any."""
    flipped = far[count:] < far[:count] if len(far) > count else np.zeros(far.shape, np.bool_)
    nearer = np.minimum(far[:count], far[-count:])
    for place in range(count):
        chosen = np.argpartition(nearer[place], MOST_ALIKE)[:MOST_ALIKE] if len(numbers) > MOST_ALIKE else slice(None)
        found[place].append((numbers[chosen], nearer[place][chosen], flipped[place][chosen]))


def _merged(parts: Sequence[tuple[NDArray, NDArray, NDArray]]) -> _Near:
    numbers, far, flipped = (np.concatenate([part[i] for part in parts]) for i in range(3))
    order = np.lexsort((numbers, far))[:MOST_ALIKE]
    return _Near(numbers[order], far[order], flipped[order])


def _variants(
    index: ReferenceIndex,
    own: int | None,
    nears: Sequence[_Near],
    bits: NDArray[np.int64],
) -> set[int]:
    """The reference itself, and those that are the same picture. Not those that share a part: see `SURE_PART`."""
    if own is None:
        return set()
    left_out = {own}
    for near in nears:
        alike = near.numbers[near.distances <= SAME]
        left_out |= {int(number) for number in alike if bits[number] <= SAME_BITS}
        left_out |= {int(n) for n in alike if index.entries[int(n)].digest == index.entries[own].digest}
    return left_out


def _add_near(found: dict[int, Candidate], near: _Near, left_out: set[int], test: str) -> None:
    kept = np.array([number not in left_out for number in near.numbers.tolist()], np.bool_)
    numbers, far, flipped = near.numbers[kept], near.distances[kept], near.flipped[kept]
    usual = appearance.usual(far)
    for number, distance, mirrored in list(zip(numbers.tolist(), far.tolist(), flipped.tolist(), strict=True))[:MOST]:
        one = found.setdefault(number, Candidate(number))
        if test != "encoder":
            one.distance = min(one.distance, distance)
        if -distance / usual > one.scores[test]:
            one.scores[test], one.flipped[test] = -distance / usual, mirrored


def _add_codes(found: dict[int, Candidate], bits: NDArray[np.int64], left_out: set[int]) -> None:
    """The nearest by image codes are candidates; they have no score, since small copies tell more."""
    far = bits.copy()
    far[list(left_out)] = appearance.BITS
    for number in np.argsort(far, kind="stable")[:MOST].tolist():
        if far[number] <= SAME_BITS:
            found.setdefault(number, Candidate(number))


def _add_parts(found: dict[int, Candidate], moved: Sequence[tuple[int, local.Movement, bool]]) -> None:
    nearest: dict[int, tuple[int, local.Movement, bool]] = {}
    for one in moved:
        if one[0] not in nearest or one[1].matches > nearest[one[0]][1].matches:
            nearest[one[0]] = one
    counts = sorted((movement.matches for _, movement, _ in nearest.values()), reverse=True)
    in_common = sum(counts[OTHERS:VERIFIED]) / (VERIFIED - OTHERS)
    for number, movement, flipped in nearest.values():
        one = found.setdefault(number, Candidate(number))
        one.scores["part"], one.movement, one.flipped["part"] = movement.matches - in_common, movement, flipped


def _moved(index: ReferenceIndex, row: Row, own: int | None) -> Iterator[tuple[int, local.Movement, bool]]:
    """References that share local features with a picture, or with it flipped, and by which movement."""
    if not len(row.features):
        return
    for flipped in (False, True):
        features = row.features.flipped(row.width) if flipped else row.features
        votes = index.words.votes(features, len(index))
        if own is not None:
            votes[own] = 0
        for number in np.argsort(-votes, kind="stable")[: VERIFIED if own is None else VERIFIED + 4].tolist():
            if votes[number] < VOTES:
                break
            movement = local.movement(features, index.row(number).features)
            if movement is not None:
                yield number, movement, flipped
