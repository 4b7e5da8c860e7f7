"""Prompts and images to audit, one at a time, and what they were when the audit began.

A row that cannot be used is a `Reject` in its place, so that one bad row among a hundred thousand stops nothing; a file
that cannot be used at all is an InputError, raised before any work is done.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ..errors import InputError, SidecarError
from ..images import images_among, no_images
from ..prompts.reader import PromptFile
from ..sidecar.digests import file_sha256
from .rows import PART, Reject, Row, excerpt

ENDS = 4096  # bytes of an image, at its beginning and its end, that stand for all of it


class Prints:
    """Digests of the rows of an input, in parts of PART rows.

    Args:
        marks: The bytes that stand for each row; all that is read of it.
    """

    def __init__(self, marks: Iterable[bytes]) -> None:
        self.parts: list[bytes] = []
        self.rows = 0
        rest = iter(marks)
        while part := list(islice(rest, PART)):
            self.parts.append(print_of(part))
            self.rows += len(part)

    def digest(self) -> str:
        """Returns the SHA-256, in hex, over all rows."""
        return hashlib.sha256(b"".join(self.parts)).hexdigest()


def print_of(marks: Iterable[bytes]) -> bytes:
    """Returns the SHA-256, 32 bytes, over the marks of some rows."""
    digest = hashlib.sha256()
    for mark in marks:
        digest.update(len(mark).to_bytes(8, "little") + mark)
    return digest.digest()


class Prompts:
    """The prompts of a file; see `PromptFile` for its arguments.

    Attributes:
        total: Number of rows, rejects among them.
        prints: Digests of the rows as they are read here, once.

    Raises:
        InputError: The file does not exist, is of another format or malformed, has no such column, or no usable row.
    """

    def __init__(
        self, path: Path, column: str = "prompt", format: str | None = None, delimiter: str | None = None
    ) -> None:
        self.path, self.file = path, PromptFile(path, format, column, delimiter)
        if not self.file.again:
            raise InputError(f"{path} is no regular file, and an audit reads its input more than once: save it first")
        self.prints = Prints(map(self.mark, self.file))
        self.total = self.prints.rows

    def digest(self) -> str:
        """Returns the SHA-256, in hex, over the rows, however the file is encoded and packed."""
        return self.prints.digest()

    def mark(self, row: Row | Reject) -> bytes:
        """Returns the bytes that stand for a row: all that is read of it."""
        return "\0".join(map(str, row[1:])).encode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[Row | Reject]:
        return iter(self.file)


class Images:
    """The image files of a folder and its subfolders, by name; each row's value is the path within the folder.

    Args:
        folder: The folder.

    Attributes:
        total: Number of images.

    Raises:
        InputError: There is no such folder, or no image in it.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: check the name")
        files = images_among(folder.rglob("*"))
        self.folder, self.files = folder, sorted(file.relative_to(folder).as_posix() for file in files)
        if not self.files:
            raise no_images(folder)
        self.total = len(self.files)
        self.prints = self._printed()

    def digest(self) -> str:
        """Returns the SHA-256, in hex, over names, sizes, and the first and last bytes of each image, as they are now.

        Reading every byte could take longer than the audit. A change of other bytes that keeps the size is not seen; in
        compressed images there is hardly one that leaves the end as it was.
        """
        return self._printed().digest()

    def mark(self, row: Row | Reject) -> bytes:
        """Returns the bytes that stand for a row; see `digest`."""
        return self._mark(self.files[row.row])

    def _printed(self) -> Prints:
        return Prints(map(self._mark, self.files))

    def _mark(self, name: str) -> bytes:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = file.read(ENDS)
                file.seek(max(len(start), size - ENDS))
                content = hashlib.sha256(start + file.read(ENDS)).hexdigest()
        except OSError as error:
            size, content = -1, str(error.strerror)
        return f"{name}\0{size}\0{content}".encode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[Row | Reject]:
        for number, name in enumerate(self.files):
            try:
                name.encode()
            except UnicodeEncodeError:
                yield Reject(number, "its name is not UTF-8: rename it", excerpt(name))
                continue
            yield Row(number, name)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256, in hex, of a file's content. Raises InputError if it cannot be read."""
    try:
        return file_sha256(path)
    except SidecarError as error:
        raise InputError(str(error)) from error
