"""Which pictures are compared, and how they are read: files, folders and what lies in them, Pillow images."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CryptomnesiaError, InputError, require
from ..image_codes import plain
from ..images import SUFFIXES, UNREADABLE, open_image
from ..pixels import read_picture
from ..printable import printable

KEPT = 512  # pixels
MOST_FOLDERS = 100_000  # that are looked into below one folder


@dataclass(frozen=True)
class Picture:
    """A picture as people see it.

    Attributes:
        name: What reports call it: its path, or "image 3".
        image: A Pillow image, RGB.
        digest: SHA-256 of its pixels and size, in hex.
        size: (width, height) in pixels.
    """

    name: str
    image: Any
    digest: str
    size: tuple[int, int]


def smaller(picture: Picture) -> Picture:
    """Returns the picture with an image of at most KEPT pixels a side, which is enough to tell what part is alike."""
    image = picture.image.copy()
    image.thumbnail((KEPT, KEPT))
    return replace(picture, image=image)


def listed(given: Any, what: str) -> list[Any]:
    """Returns what is to be read, in order: of a folder all files below it that are called like images.

    Links to folders are followed, each folder once, so that links in a circle end.

    Args:
        given: A file, a folder, a Pillow image or an array, or a list of these.
        what: What messages call them, e.g. "references".

    Raises:
        InputError: There is no such file or folder, or nothing in it that is called like an image.
    """
    if not isinstance(given, str | Path):
        items = list(given) if isinstance(given, Sequence | Iterator | set | tuple) else [given]
        if not items:
            raise InputError(f"no image was given as {what}: give files, a folder, or images")
        return [file for item in items for file in (listed(item, what) if isinstance(item, str | Path) else [item])]
    path = Path(given).expanduser()
    if path.is_dir():
        files = sorted(_below(path))
        if not files:
            raise InputError(
                f"the folder {printable(path)} of {what} holds no images ({', '.join(SUFFIXES)}): give another"
            )
        return files
    if not path.exists() and not path.is_symlink():
        raise InputError(f"there is no image or folder {printable(path)} of {what}: check the name")
    return [path]


def _below(folder: Path) -> Iterator[Path]:
    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen and not name.startswith("."):
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        if len(seen) > MOST_FOLDERS:
            raise InputError(f"{printable(folder)} has over {MOST_FOLDERS} folders in it: give the one with the images")
        for name in files:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def name_of(item: Any, number: int) -> str:
    """Returns what reports call the item of that number, counted from 0."""
    return str(item) if isinstance(item, str | Path) else f"image {number + 1}"


def read(item: Any, number: int = 0) -> Picture:
    """Reads one item of what `listed` returns.

    Raises:
        InputError: It cannot be read: damaged, animated, huge, no image.
        MissingPackage: Pillow is not installed.
    """
    name = name_of(item, number)
    try:
        return _picture(name, _opened(item, name))
    except CryptomnesiaError:
        raise
    except UNREADABLE as error:
        reason = printable(error) or type(error).__name__
        raise InputError(f"{printable(name)} is no image that can be read ({reason}): save it as PNG") from error


def _opened(item: Any, name: str) -> Any:
    if isinstance(item, str | Path):
        return open_image(item)
    if hasattr(item, "convert") and hasattr(item, "mode"):
        return item
    pixels = (read_picture(item, name)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return require("PIL.Image", "provenance").fromarray(pixels)


def _picture(name: str, image: Any) -> Picture:
    shown = plain(image)
    digest = hashlib.sha256(shown.tobytes() + repr(shown.size).encode()).hexdigest()
    return Picture(name, shown, digest, shown.size)
