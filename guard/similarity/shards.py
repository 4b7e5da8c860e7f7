"""What is kept of references: rows of arrays in a folder of shards, mapped into memory, never read whole."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import remove, write_file
from ..printable import printable
from ..strict_json import read_object
from . import appearance, local

SCHEMA = "cryptomnesia/reference-index/1"
MANIFEST = "index.json"
LARGEST = 256 << 20  # bytes of the manifest
ROWS = 2048  # of a shard
WHAT, REMEDY = "index of references", "remove its folder to build it again"


@dataclass(frozen=True)
class Row:
    """What is kept of one picture.

    Attributes:
        copy: Its small copy, (SIDE, SIDE, 3) uint8.
        codes: Its image codes, (CODES, 4) uint64.
        features: Its local features; empty without OpenCV.
        embedding: (D,) float32, or (0,) without an encoder.
        width: In units of the long side.
    """

    copy: NDArray[np.uint8]
    codes: NDArray[np.uint64]
    features: local.Features
    embedding: NDArray[np.float32]
    width: float


@dataclass(frozen=True)
class Entry:
    """One reference: where it lies, how its file was when it was read, and the digest of its pixels."""

    path: str
    size: int
    changed: int
    digest: str


@dataclass(frozen=True)
class Shard:
    """Rows in arrays; `starts` (N + 1,) says where each row's features begin."""

    copies: NDArray[np.uint8]
    codes: NDArray[np.uint64]
    widths: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    starts: NDArray[np.int64]
    bits: NDArray[np.uint64]
    spots: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.copies)

    def features(self, row: int) -> local.Features:
        """Returns the local features of a row."""
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return local.Features(np.array(self.bits[part]), np.array(self.spots[part], np.float32))


ARRAYS = tuple(Shard.__annotations__)


def shard_of(rows: Sequence[Row]) -> Shard:
    """Returns rows as one shard, in memory."""
    return Shard(
        copies=np.stack([row.copy for row in rows]),
        codes=np.stack([row.codes for row in rows]),
        widths=np.array([row.width for row in rows], np.float32),
        embeddings=np.stack([row.embedding for row in rows]),
        starts=np.cumsum([0, *(len(row.features) for row in rows)]),
        bits=np.concatenate([row.features.bits for row in rows]),
        spots=np.concatenate([row.features.spots for row in rows]).astype(np.float16),
    )


def write_shard(folder: Path, shard: Shard) -> str:
    """Writes a shard's arrays into a folder, and returns the name that they share."""
    data = {}
    for name in ARRAYS:
        buffer = io.BytesIO()
        np.save(buffer, getattr(shard, name), allow_pickle=False)
        data[name] = buffer.getvalue()
    called = hashlib.sha256(b"".join(data.values())).hexdigest()[:16]
    for name, array in data.items():
        write_file(_file(folder, called, name), array, WHAT)
    return called


def read_shard(folder: Path, called: str, rows: int) -> Shard:
    """Maps a shard's arrays into memory. Raises InputError where they are missing, damaged, or of another shape."""
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        file = _file(folder, called, name)
        try:
            empty = file.stat().st_size <= 128  # nothing behind the header, which cannot be mapped
            arrays[name] = np.load(file, mmap_mode=None if empty else "r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{printable(file)} of the {WHAT} cannot be read ({printable(error)}): {REMEDY}"
            ) from error
    shard = Shard(**arrays)
    features = len(shard.bits) if shard.bits.ndim else 0
    side = appearance.SIDE
    wanted = {
        "copies": ((rows, side, side, 3), "uint8"),
        "codes": ((rows, appearance.CODES, 4), "uint64"),
        "widths": ((rows,), "float32"),
        "embeddings": ((rows, shard.embeddings.shape[-1] if shard.embeddings.ndim == 2 else -1), "float32"),
        "starts": ((rows + 1,), "int64"),
        "bits": ((features, local.WORDS), "uint64"),
        "spots": ((features, 4), "float16"),
    }
    fits = all((arrays[name].shape, arrays[name].dtype.name) == kind for name, kind in wanted.items())
    steps = np.diff(shard.starts) if fits else np.zeros(0)
    if not fits or shard.starts[0] != 0 or shard.starts[-1] != features or (steps < 0).any():
        raise InputError(f"{printable(_file(folder, called, ''))} of the {WHAT} is damaged: {REMEDY}")
    return shard


def _file(folder: Path, called: str, name: str) -> Path:
    return folder / f"{called}.{name}.npy"


def write_manifest(
    folder: Path, settings: dict[str, Any], shards: Sequence[tuple[str, Sequence[Entry | None]]]
) -> None:
    """Writes which rows of which shards are which references (None: of none any more), and removes other shards."""
    document = {
        "schema": SCHEMA,
        "settings": settings,
        "shards": [
            {"name": name, "rows": [None if e is None else [e.path, e.size, e.changed, e.digest] for e in entries]}
            for name, entries in shards
        ],
    }
    write_file(folder / MANIFEST, json.dumps(document, indent=0).encode(), WHAT)
    kept = {f"{name}.{array}.npy" for name, _ in shards for array in ARRAYS}
    for file in folder.glob("*.npy"):
        if file.name not in kept and file.name.split(".")[1] in ARRAYS:
            remove(file)


def read_manifest(folder: Path, settings: dict[str, Any]) -> list[tuple[str, list[Entry | None]]]:
    """Returns a folder's shards with their rows; none where there is no index, or one made by other settings.

    Raises InputError for a file that is no such manifest.
    """
    file = folder / MANIFEST
    if not os.path.lexists(file):
        return []
    document = read_object(file, LARGEST, WHAT, REMEDY)
    if document.get("schema") != SCHEMA or document.get("settings") != settings:
        if not str(document.get("schema")).startswith(SCHEMA.rpartition("/")[0]):
            raise InputError(f"{printable(file)} is no {WHAT}: give another folder")
        return []
    try:
        return [(_called(shard["name"]), list(_entries(shard["rows"]))) for shard in document["shards"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{printable(file)} is a damaged {WHAT}: {REMEDY}") from error


def _called(name: Any) -> str:
    if not isinstance(name, str) or len(name) != 16 or not set(name) <= set("0123456789abcdef"):
        raise ValueError("no shard is called so")
    return name


def _entries(rows: Any) -> Iterator[Entry | None]:
    for row in rows:
        if row is None:
            yield None
            continue
        path, size, changed, digest = row
        if not isinstance(path, str) or not isinstance(digest, str) or not isinstance(size + changed, int):
            raise ValueError("no reference is told of so")
        yield Entry(path, size, changed, digest)
