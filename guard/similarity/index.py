"""An index over a folder of references: what their pictures look like, kept, and searched within bounded memory."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoders import Encoder, open_encoder
from ..errors import InputError
from ..printable import printable
from ..progress import Progress
from ..run_folder import locked
from . import appearance, local
from .pictures import Picture, listed, name_of, read
from .shards import ROWS, Entry, Row, Shard, read_manifest, read_shard, shard_of, write_manifest, write_shard
from .words import Words

VERSION = 1  # of what is measured; rows of another one are measured again
BUILT_IN = "built-in"  # the small encoder that lineage brings
PER_CALL = 16  # pictures that an encoder is given at once


@dataclass(frozen=True)
class ReferenceIndex:
    """References and what they look like. Made by `build`.

    Attributes:
        entries: One for each reference that was read, in order of their names.
        rejected: Why others could not be read, by name.
        duplicates: Groups of names of the same picture, pixel by pixel.
        read_again: How many were read now; the others were known.
        encoder: The encoder whose vectors are kept, or None.
        parts: Whether local features are kept, for which OpenCV is needed.
        store: The folder that it is kept in, or None.
        kept: What was measured of the whole index, by name.
    """

    entries: tuple[Entry, ...]
    rejected: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    read_again: int
    encoder: Encoder | None
    parts: bool
    store: Path | None
    _shards: tuple[Shard, ...] = field(repr=False)
    _where: NDArray[np.int64] = field(repr=False)  # (N, 2): shard and row of each entry
    _items: dict[str, Any] = field(repr=False, default_factory=dict)
    kept: dict[str, Any] = field(repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    @staticmethod
    def build(
        references: Any,
        *,
        store: Path | None = None,
        encoder: Any = None,
        parts: bool = True,
        progress: Progress | None = None,
    ) -> "ReferenceIndex":
        """Reads references, or what is kept of them: only files that are new or changed are read again.

        Args:
            references: A folder, a file, a Pillow image, or a list of these. Of a folder all images below it are taken.
            store: A folder that the index is kept in; None for memory alone. It may be stopped and goes on there.
            encoder: An .onnx file, a CLIP folder, an `Encoder`, or "built-in" for a small one to try; None for none.
            parts: Whether parts are to be looked for, which takes most of the time; left out where OpenCV is missing.
            progress: Called with the numbers of references done and of all.

        Returns:
            The index. References that cannot be read are named in it, with the reason.

        Raises:
            InputError: There are no references, none of them can be read, or `store` holds something else.
            MissingPackage: Pillow or iscc-lib is not installed, or what the encoder needs.
        """
        items = listed(references, "references")
        opened = None if encoder is None else encoder_of(encoder)
        builder = Builder(items, None if store is None else Path(store).expanduser(), opened, parts)
        return builder.built(progress)

    def item(self, number: int) -> Any:
        """Returns the reference of that number as it was given: a path or a Pillow image."""
        entry = self.entries[number]
        return self._items.get(entry.path, Path(entry.path))

    def row(self, number: int) -> Row:
        """Returns what is kept of the reference of that number."""
        shard, row = self._where[number]
        kept = self._shards[shard]
        return Row(
            np.asarray(kept.copies[row]),
            np.asarray(kept.codes[row]),
            kept.features(row),
            np.asarray(kept.embeddings[row]),
            float(kept.widths[row]),
        )

    def blocks(self, name: str) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Returns the array of that name, shard by shard: numbers of references, and their rows."""
        for shard, kept in enumerate(self._shards):
            numbers = np.flatnonzero(self._where[:, 0] == shard)
            if len(numbers):
                yield numbers, getattr(kept, name)[self._where[numbers, 1]]

    @cached_property
    def words(self) -> Words:
        """All local features, by words that lead to them."""
        return Words([(numbers, self._where[numbers, 1], self._shards[shard]) for shard, numbers in self._by_shard()])

    def _by_shard(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        for shard in range(len(self._shards)):
            numbers = np.flatnonzero(self._where[:, 0] == shard)
            if len(numbers):
                yield shard, numbers

    @cached_property
    def identity(self) -> str:
        """A digest of all references' pixels and of how they were measured."""
        text = "\n".join([*sorted(entry.digest for entry in self.entries), repr(settings_of(self.encoder, self.parts))])
        return hashlib.sha256(text.encode()).hexdigest()


def measured(picture: Picture, encoder: Encoder | None, parts: bool) -> Row:
    """Returns what is kept of a picture."""
    return _rows([picture], encoder, parts)[0]


def _rows(pictures: Sequence[Picture], encoder: Encoder | None, parts: bool) -> list[Row]:
    none = local.Features(np.zeros((0, local.WORDS), np.uint64), np.zeros((0, 4), np.float32))
    vectors: Any = [np.zeros(0, np.float32)] * len(pictures)
    if encoder is not None and pictures:
        vectors = encoder.encode([_tensor(picture) for picture in pictures])
    return [
        Row(
            appearance.small_copy(picture.image),
            appearance.codes(picture.image),
            local.features(picture.image) if parts else none,
            vector,
            picture.image.width / max(picture.image.size),
        )
        for picture, vector in zip(pictures, vectors, strict=True)
    ]


def _tensor(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.image)).permute(2, 0, 1).float()[None] / 255


def settings_of(encoder: Encoder | None, parts: bool) -> dict[str, Any]:
    """Returns what rows of an index depend on beside the pictures; with others they are measured again."""
    return {"version": VERSION, "parts": parts, "encoder": None if encoder is None else key_of(encoder)}


def encoder_of(source: Any) -> Encoder:
    """Returns the encoder that is meant; raises as `open_encoder` does."""
    return open_encoder(None if isinstance(source, str | Path) and str(source) == BUILT_IN else source)


def key_of(encoder: Encoder) -> str:
    """Returns what tells an encoder from others: name and size, and of a file its length and when it was written."""
    facts: list[Any] = [encoder.name, list(encoder.size)]
    if os.path.isfile(encoder.name):
        state = os.stat(encoder.name)
        facts += [state.st_size, state.st_mtime_ns]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


class Builder:
    """Builds one index, shard by shard.

    Args:
        items: Files and Pillow images.
        store: The folder that the index is kept in, or None.
        encoder: The encoder whose vectors are kept, or None.
        parts: Whether local features are kept, if OpenCV is installed.
    """

    def __init__(self, items: Sequence[Any], store: Path | None, encoder: Encoder | None = None, parts: bool = True):
        self.items, self.store, self.encoder = items, store, encoder
        self.parts = parts and local.available()
        self.settings = settings_of(encoder, self.parts)
        self.shards: list[tuple[str, list[Entry | None], Shard]] = []
        self.rejected: dict[str, str] = {}
        self.home: dict[str, str] = {}  # each entry's shard, by path
        self.waiting: list[tuple[Entry, Picture]] = []
        self.rows: list[tuple[Entry, Row]] = []
        self.given: dict[str, Any] = {}
        self.read_again = 0

    def built(self, progress: Progress | None = None) -> ReferenceIndex:
        """Returns the index, and holds its folder meanwhile.

        Raises InputError where none of the items can be read, or the folder holds something else, or is being written.
        """
        if self.store is None:
            return self._built({}, progress)
        self._require_place(self.store)
        with locked(self.store, "comparison", "another folder for the index"):
            return self._built(self._known(self.store), progress)

    def _built(self, known: dict[str, Entry], progress: Progress | None) -> ReferenceIndex:
        wanted: set[str] = set()
        for number, item in enumerate(self.items):
            name = name_of(item, number)
            if name not in wanted:
                wanted.add(name)
                self._take(item, name, number, known)
            if progress:
                progress(number + 1, len(self.items))
        self._encode()
        self._flush()
        for name, entries, _ in self.shards:
            entries[:] = [entry if entry is not None and self._is(name, entry, wanted) else None for entry in entries]
        self.shards = [shard for shard in self.shards if any(shard[1])]
        if not self.shards:
            raise InputError(f"none of the references can be read: {_first(self.rejected)}")
        self._write()
        return self._index()

    def _is(self, shard: str, entry: Entry, wanted: set[str]) -> bool:
        return entry.path in wanted and self.home.get(entry.path) == shard

    def _require_place(self, store: Path) -> None:
        """Makes the folder, unless it is there; nothing is written into one that holds something else."""
        try:
            store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{printable(store)} cannot be a folder ({error.strerror}): give another for the index"
            ) from error
        read_manifest(store, self.settings)

    def _known(self, store: Path) -> dict[str, Entry]:
        """Entries that are kept, by path; their shards are opened."""
        known = {}
        for name, entries in read_manifest(store, self.settings):
            self.shards.append((name, entries, read_shard(store, name, len(entries))))
            for entry in entries:
                if entry is not None:
                    known[entry.path], self.home[entry.path] = entry, name
        return known

    def _take(self, item: Any, name: str, number: int, known: dict[str, Entry]) -> None:
        path = Path(item) if isinstance(item, str | Path) else None
        size = changed = 0
        if path is not None:
            try:
                state = path.stat()
                size, changed = state.st_size, state.st_mtime_ns
            except OSError:
                pass  # reading it says why
            entry = known.get(name)
            if entry is not None and (entry.size, entry.changed) == (size, changed):
                return
        self.home.pop(name, None)
        try:
            picture = read(item, number)
        except InputError as error:
            self.rejected[name] = str(error)
            return
        if path is None:
            self.given[name] = item
        self.read_again += 1
        self.waiting.append((Entry(name, size, changed, picture.digest), picture))
        if self.encoder is None or len(self.waiting) >= PER_CALL:  # large pictures are not kept without need
            self._encode()

    def _encode(self) -> None:
        rows = _rows([picture for _, picture in self.waiting], self.encoder, self.parts)
        self.rows += [(entry, row) for (entry, _), row in zip(self.waiting, rows, strict=True)]
        self.waiting = []
        if len(self.rows) >= ROWS:
            self._flush()
            self._write()

    def _flush(self) -> None:
        if not self.rows:
            return
        shard = shard_of([row for _, row in self.rows])
        name = f"{len(self.shards):016x}"
        if self.store is not None:
            name = write_shard(self.store, shard)
            shard = read_shard(self.store, name, len(shard))
        self.shards.append((name, [entry for entry, _ in self.rows], shard))
        for entry, _ in self.rows:
            self.home[entry.path] = name
        self.rows = []

    def _write(self) -> None:
        if self.store is not None:
            write_manifest(self.store, self.settings, [(name, entries) for name, entries, _ in self.shards])

    def _index(self) -> ReferenceIndex:
        found = [
            (entry, shard, row)
            for shard, (_, entries, _) in enumerate(self.shards)
            for row, entry in enumerate(entries)
            if entry is not None
        ]
        order = {name_of(item, number): number for number, item in reversed(list(enumerate(self.items)))}
        found.sort(key=lambda one: order[one[0].path])
        entries = tuple(entry for entry, _, _ in found)
        groups: dict[str, list[str]] = defaultdict(list)
        for entry in entries:
            groups[entry.digest].append(entry.path)
        return ReferenceIndex(
            entries=entries,
            rejected=self.rejected,
            duplicates=tuple(tuple(names) for names in groups.values() if len(names) > 1),
            read_again=self.read_again,
            encoder=self.encoder,
            parts=self.parts,
            store=self.store,
            _shards=tuple(shard for _, _, shard in self.shards),
            _where=np.array([(shard, row) for _, shard, row in found], np.int64),
            _items=self.given,
        )


def _first(rejected: dict[str, str]) -> str:
    return next(iter(rejected.values()), "there are none")
