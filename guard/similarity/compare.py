"""Is this image a copy of one of mine? Images held against an index of references."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingPackage
from ..progress import Progress
from .alignment import alike
from .index import ReferenceIndex, encoder_of, key_of, measured
from .null import Null, unrelated
from .pictures import Picture, listed, name_of, read, smaller
from .result import COPIES, NONE, PART, SAME, SIMILAR, TOLD, Comparison, ImageComparison, Match
from .search import Candidate, search
from .shards import Row

ALPHA = 0.01
AT_ONCE = 32  # images
NEAREST = 5  # matches of an image that are told
FARTHEST = 0.75  # distance of small copies up to which they may be one picture, whatever the p-value
COVERS = 0.7  # share of an image from which on a common part is the picture


def compare(
    images: Any,
    references: Any,
    *,
    encoder: Any = None,
    alpha: float = ALPHA,
    parts: bool = True,
    store: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Tells for each image which of the references it is a copy of, if any.

    Args:
        images: A folder, a file, a Pillow image, or a list of these. Unreadable ones are named, and left out.
        references: A `ReferenceIndex`, or what `ReferenceIndex.build` takes.
        encoder: An .onnx file, a CLIP folder, an `Encoder`, or "built-in"; by default that of the index, if it has one.
        alpha: Share of unrelated images that may be called copies, in (0, 1).
        parts: Whether parts are to be looked for, unless the index was built before.
        store: A folder that the index is kept in, unless it was built before.
        progress: Called with the numbers of things done and of all: references read, then held against each other, then
            images.

    Returns:
        The nearest references of each image, with kind, p-value and region.

    Raises:
        InputError: No images or no references, an alpha that is no rate, an encoder that the index was not built with.
        MissingPackage: Pillow or iscc-lib is not installed, or what the encoder needs. Without OpenCV no parts are
            looked for, and the result says so.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a false-alarm rate between 0 and 1, not {alpha}")
    items = listed(images, "images")
    if isinstance(references, ReferenceIndex):
        index = references
        if encoder is not None and (index.encoder is None or key_of(encoder_of(encoder)) != key_of(index.encoder)):
            raise InputError("the index was built without this encoder: build it with this one")
    else:
        index = ReferenceIndex.build(references, store=store, encoder=encoder, parts=parts, progress=progress)
    null = unrelated(index, store if store is not None else index.store, progress)
    return _Comparing(index, null, alpha).all(items, progress)


class _Comparing:
    def __init__(self, index: ReferenceIndex, null: Null, alpha: float):
        self.index, self.null, self.alpha = index, null, alpha
        self.files = {os.path.realpath(entry.path) for entry in index.entries}
        self.rejected: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.known: dict[str, list[int]] = {}
        for number, entry in enumerate(index.entries):
            self.known.setdefault(entry.digest, []).append(number)

    def all(self, items: Sequence[Any], progress: Progress | None) -> Comparison:
        found: list[ImageComparison] = []
        for start in range(0, len(items), AT_ONCE):
            part = [one for one in self._read(items, start)]
            rows = [row for _, _, row in part]
            for (item, picture, row), candidates in zip(part, search(self.index, rows), strict=True):
                found.append(self._one(item, picture, row, candidates))
            if progress:
                progress(min(start + AT_ONCE, len(items)), len(items))
        index = self.index
        return Comparison(
            images=tuple(found),
            rejected=self.rejected,
            references=len(index),
            reference_rejected=index.rejected,
            duplicates=index.duplicates,
            unrelated=len(self.null),
            alpha=self.alpha,
            parts=index.parts,
            encoder=None if index.encoder is None else index.encoder.name,
            identity=index.identity,
        )

    def _read(self, items: Sequence[Any], start: int) -> list[tuple[Any, Picture, Row]]:
        """Some pictures; of those that are files the pixels are not kept."""
        found = []
        for number in range(start, min(start + AT_ONCE, len(items))):
            try:
                picture = read(items[number], number)
                row = measured(picture, self.index.encoder, self.index.parts)
            except MissingPackage:
                raise
            except InputError as error:
                self.rejected[name_of(items[number], number)] = str(error)
                continue
            found.append((items[number], smaller(picture), row))
        return found

    def _one(self, item: Any, picture: Picture, row: Row, candidates: Sequence[Candidate]) -> ImageComparison:
        equal = self.known.get(picture.digest, [])[:NEAREST]
        known = {one.reference: one for one in candidates}
        for number in equal:
            known.setdefault(number, Candidate(number))
        ranked = []
        for number, one in known.items():
            p_value = self._p(one, number in equal)
            kind = self._kind(one, p_value, number in equal)
            ranked.append((kind, p_value, one, number in equal))
        order = {SAME: 0, PART: 1, SIMILAR: 2, NONE: 3}
        ranked.sort(key=lambda r: (not r[3], order[r[0]], 1 if r[1] is None else r[1], r[2].distance, r[2].reference))
        matches = tuple(self._match(picture, row, *one) for one in ranked[:NEAREST])
        matches = tuple(sorted(matches, key=lambda match: (not match.identical, order[match.kind])))
        kind, p_value = (matches[0].kind, matches[0].p_value) if matches else (NONE, None)
        repeats = self.seen.setdefault(picture.digest, picture.name)
        path = isinstance(item, str | Path)
        return ImageComparison(
            name=picture.name,
            kind=kind,
            p_value=p_value,
            nearest=matches,
            reason=self._reason(row, candidates) if kind == NONE else None,
            itself=path and os.path.realpath(item) in self.files,
            repeats=None if repeats == picture.name else repeats,
            references=len(self.index),
            digest=picture.digest,
            alpha=self.alpha,
            _item=item,
        )

    def _p(self, one: Candidate, identical: bool) -> float | None:
        if identical and len(self.null):
            return self.null.smallest
        return self.null.p_value(one.scores)

    def _kind(self, one: Candidate, p_value: float | None, identical: bool) -> str:
        """What a candidate is: by the p-value where there is one that says it, else by fixed limits."""
        if identical or one.same:
            return SAME
        if one.shares_a_part and self.null.ahead(one.scores, "part"):
            return PART
        if p_value is None or p_value > self.alpha:
            return NONE
        test = self.null.says(one.scores)
        moved = one.movement is not None and one.movement.matches >= TOLD
        if test == "part" or (moved and one.distance > FARTHEST):
            return PART
        if test == "encoder":
            return SIMILAR
        return SAME if one.distance <= FARTHEST else NONE

    def _reason(self, row: Row, candidates: Sequence[Candidate]) -> str | None:
        if not row.codes.any() and not len(row.features) and all(one.distance >= 1 for one in candidates):
            return "the picture is plain, or next to it: it says nothing but by being equal to another"
        if not len(self.null):
            return "with one reference no p-value can be stated, and it is not plainly a copy"
        if self.null.smallest > self.alpha:
            return (
                f"with {len(self.index)} references no p-value can be as small as {self.alpha:g}, and it is not "
                "plainly a copy"
            )
        return None

    def _match(
        self, picture: Picture, row: Row, kind: str, p_value: float | None, one: Candidate, identical: bool
    ) -> Match:
        width, height = picture.size
        movement = one.movement
        test = "part" if kind == PART or (movement is not None and one.shares_a_part and not one.same) else "picture"
        flipped = one.flipped.get(test, one.flipped.get("grey", False)) and not identical
        mask, similarity = None, max(-1.0, 1 - one.distance**2 / 2)
        item = self.index.item(one.reference)
        if identical:
            mask, similarity = np.ones((min(height, 8), min(width, 8)), np.bool_), 1.0
        elif kind in COPIES:
            try:
                reference = read(item).image
            except InputError:  # gone meanwhile: what was measured of it stands
                reference = None
            if reference is not None:
                laid = movement if test == "part" else None
                mask, similarity = alike(picture.image, reference, laid, flipped)
                # it takes up most of the reference, too
                if (
                    kind == PART
                    and mask.mean() >= COVERS
                    and movement is not None
                    and abs(movement.turn) ** 2 >= COVERS
                ):
                    kind = SAME
        cosine = None
        if self.index.encoder is not None:
            other = self.index.row(one.reference).embedding
            norm = float(np.linalg.norm(row.embedding) * np.linalg.norm(other))
            cosine = float(row.embedding @ other) / norm if norm > 0 else 0.0
        return Match(
            reference=self.index.entries[one.reference].path,
            kind=kind,
            p_value=p_value,
            similarity=similarity,
            flipped=bool(flipped),
            identical=identical,
            matches=0 if movement is None else movement.matches,
            cosine=cosine,
            size=(height, width),
            _mask=mask,
            _item=item,
        )
