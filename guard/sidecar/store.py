"""A local store of what was saved: finds the record of an image whose metadata are gone, by what it looks like.

One SQLite file in a folder. Codes lie in blocks of rows, their first 8 bytes apart from the other 24: a look-up
compares the first of all of them at once, and the others only where those are near. No index has to be kept. The
records hold the statements, and so the prompts as privacy allowed.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CryptomnesiaError, InputError, SidecarError
from ..image_codes import bits, count
from ..printable import printable
from .reading import parse

FILE = "provenance.sqlite"
VERSION = 1
# in the first 64 bits of two codes, which tell the coarse of a picture, and in all 256; docs/results.md tells how many
# copies are found within both, and how many strangers
MOST_COARSE, MOST_FINE = 10, 48
_APPLICATION = 0x63727970  # "cryp", so that no other database is taken for a store
_ROWS = 1024  # of a block
_SECONDS = 5.0  # that a locked store is waited for
_WORDS = 4
_MOST_NEAR = 1000  # records that are looked at for one image
_TABLES = """
CREATE TABLE records (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL UNIQUE, pixels TEXT NOT NULL, statement TEXT NOT NULL
);
CREATE INDEX pixels ON records (pixels);
CREATE TABLE blocks (number INTEGER PRIMARY KEY, ids BLOB NOT NULL, coarse BLOB NOT NULL, fine BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Match:
    """A record that an image matches.

    Attributes:
        distance: In how many of 256 bits the image codes differ; 0 also where the pixels are the very same.
        coarse: In how many of the first 64, which tell the coarse of a picture.
        same_pixels: Whether the decoded pixels are those of the record.
        statement: What the image's sidecar said when it was saved.
    """

    distance: int
    coarse: int
    same_pixels: bool
    statement: dict[str, Any]

    @property
    def name(self) -> str:
        """The file name that the image was saved under."""
        return str(self.statement["subject"][0]["name"])

    @property
    def content_id(self) -> str | None:
        """The id of the image's manifest, or None where it was saved without a marking."""
        return (self.statement["predicate"].get("marking") or {}).get("content_id")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        created = self.statement["predicate"]["created"]
        about = {"name": self.name, "content_id": self.content_id, "created": created}
        return {"distance": self.distance, "coarse": self.coarse, "same_pixels": self.same_pixels, **about}


class Store:
    """A store that is open; a context manager that closes it.

    Made by `Store.open`. What goes wrong in between is a SidecarError of one line: nothing of an addition that could
    not be finished stays.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path):
        self._connection, self.path = connection, path

    @staticmethod
    def open(folder: str | Path, *, make: bool = False) -> "Store":
        """Opens the store in a folder.

        Args:
            folder: The folder.
            make: Make folder and store where there are none, for their owner only.

        Returns:
            The store.

        Raises:
            InputError: There is no store, and none is to be made.
            SidecarError: It cannot be read, is no store, is locked, or was made by a newer version.
        """
        path = Path(os.path.expanduser(folder)) / FILE
        new = not path.exists()
        if new and not make:
            raise InputError(f"there is no store in {printable(folder)}: give the folder that images were saved with")
        try:
            if new:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # prompts may be in it
            connection = sqlite3.connect(path, timeout=_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error, ValueError) as error:
            raise SidecarError(f"the store {printable(path)} cannot be opened: {printable(error)}") from error
        store = Store(connection, path)
        try:
            with store._told():
                store._prepare()
        except CryptomnesiaError:
            connection.close()
            raise
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __len__(self) -> int:
        """The number of records."""
        with self._told():
            return self._connection.execute("SELECT count(*) FROM records").fetchone()[0]

    def add(self, statement: Mapping[str, Any], codes: Sequence[str]) -> None:
        """Adds an image, in the place of one with the same bytes.

        Args:
            statement: What its sidecar says.
            codes: Its codes, as `image_codes.codes_to_find` gives them; without any it is found by its pixels alone.
        """
        self.add_all([(statement, codes)])

    def add_all(self, images: Iterable[tuple[Mapping[str, Any], Sequence[str]]]) -> None:
        """Adds images, all or none; see `add`."""
        rows = [
            (
                statement["subject"][0]["digest"]["sha256"],
                statement["predicate"]["pixels"]["sha256"],
                json.dumps(statement, separators=(",", ":"), ensure_ascii=False),
                codes,
            )
            for statement, codes in images
        ]
        with self._told(), self._transaction():
            added: list[tuple[int, str]] = []
            for sha256, pixels, text, codes in rows:
                # the old codes stay, and lead nowhere
                self._connection.execute("DELETE FROM records WHERE sha256 = ?", (sha256,))
                identity = self._connection.execute(
                    "INSERT INTO records (sha256, pixels, statement) VALUES (?, ?, ?)", (sha256, pixels, text)
                ).lastrowid
                added += [(int(identity or 0), code) for code in codes]
            self._append(added)

    def find(
        self,
        codes: Sequence[str],
        pixels: str | None = None,
        *,
        most: int = 5,
        coarse: int = MOST_COARSE,
        fine: int = MOST_FINE,
    ) -> list[Match]:
        """Returns the records that an image may be a copy of, the nearest first.

        Args:
            codes: The image's codes, as `image_codes.codes_to_find` gives them.
            pixels: The digest of its pixels, if it could be taken.
            most: How many are returned.
            coarse: The largest distance in the first 64 bits.
            fine: The largest distance in all 256 bits.
        """
        with self._told():
            found: dict[int, tuple[bool, int, int]] = {}
            if pixels is not None:
                for (identity,) in self._connection.execute("SELECT id FROM records WHERE pixels = ?", (pixels,)):
                    found[identity] = (False, 0, 0)
            for identity, whole, first in self._near(codes, coarse, fine):
                found[identity] = min(found.get(identity, (True, whole, first)), (True, whole, first))
            matches = []
            for identity, (other, whole, first) in sorted(found.items(), key=lambda one: (one[1], -one[0])):
                row = self._connection.execute("SELECT statement FROM records WHERE id = ?", (identity,)).fetchone()
                if row is not None:
                    matches.append(Match(whole, first, not other, _statement(row[0], self.path)))
                if len(matches) == most:
                    break
            return matches

    def _near(self, codes: Sequence[str], coarse: int, fine: int) -> Iterator[tuple[int, int, int]]:
        """Records within both distances of any of the codes, with theirs: in all bits, and in the first 64."""
        wanted = [bits(code) for code in codes]
        if not wanted:
            return
        blocks = self._connection.execute("SELECT number, coarse FROM blocks").fetchall()
        words = np.frombuffer(b"".join(block for _, block in blocks), dtype="<u8")
        starts = np.cumsum([0, *(len(block) // 8 for _, block in blocks)])
        for code in wanted:
            first = count(words ^ code[0])
            near = np.flatnonzero(first <= coarse)
            near = near[np.argsort(first[near], kind="stable")][:_MOST_NEAR]
            where = np.searchsorted(starts, near, side="right") - 1
            for block in np.unique(where):
                ids, rest = self._connection.execute(
                    "SELECT ids, fine FROM blocks WHERE number = ?", (blocks[block][0],)
                ).fetchone()
                inside = near[where == block]
                rows = inside - starts[block]
                others = np.frombuffer(rest, dtype="<u8").reshape(-1, _WORDS - 1)[rows]
                whole = first[inside] + count(others ^ code[1:]).sum(axis=1)
                for identity, far, start in zip(np.frombuffer(ids, "<i8")[rows], whole, first[inside], strict=True):
                    if far <= fine:
                        yield int(identity), int(far), int(start)

    def _append(self, added: Sequence[tuple[int, str]]) -> None:
        """Puts codes with their records' numbers behind those of the last block, and into new ones."""
        query = "SELECT number, ids, coarse, fine FROM blocks ORDER BY number DESC LIMIT 1"
        number, ids, coarse, fine = self._connection.execute(query).fetchone() or (0, b"", b"", b"")
        words = np.array([bits(code) for _, code in added], "<u8").reshape(-1, _WORDS)
        ids += np.array([identity for identity, _ in added], "<i8").tobytes()
        coarse, fine = coarse + words[:, 0].tobytes(), fine + words[:, 1:].tobytes()
        for start in range(0, len(ids) // 8, _ROWS):
            here = [part[size * start : size * (start + _ROWS)] for part, size in ((ids, 8), (coarse, 8), (fine, 24))]
            self._connection.execute("REPLACE INTO blocks VALUES (?, ?, ?, ?)", (number, *here))
            number += 1

    def _prepare(self) -> None:
        if self._pragma("user_version") == 0 and not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            with self._transaction():
                # another program may have been faster
                if not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for command in _TABLES.split(";"):
                        self._connection.execute(command)
                    self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    self._connection.execute(f"PRAGMA user_version = {VERSION}")
        if self._pragma("application_id") != _APPLICATION:
            raise SidecarError(f"{printable(self.path)} is no store of provenance: give another folder")
        version = self._pragma("user_version")
        if version > VERSION:
            raise SidecarError(
                f"the store {printable(self.path)} is of version {version}, which this program does not know: update it"
            )

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns SQLite's errors into one line with a mend."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "locked" in text or "busy" in text:
                what = f"is locked by another program for over {_SECONDS:g} seconds: try again when that is done"
            elif "readonly" in text or "unable to open" in text:
                what = "cannot be written: check its permissions"
            elif "full" in text:
                what = "cannot be written, since the disk is full: free some space"
            else:
                what = f"is damaged, or no store ({printable(text, 80)}): give another folder, or take a copy of it"
            raise SidecarError(f"the store {printable(self.path)} {what}") from error


def _statement(text: str, path: Path) -> dict[str, Any]:
    """The statement of a record; as strict as a sidecar, since a store may come from anyone."""
    try:
        return parse(text.encode())
    except SidecarError as error:
        raise SidecarError(f"a record of the store {printable(path)} cannot be used: {error}") from error
