"""Image files from outside: one way in, bounded and in one line where they cannot be used."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .containers import one_picture
from .errors import InputError, require
from .files import read_regular
from .printable import printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")  # never one that starts another program
MOST_BYTES = 1 << 30
MOST_PIXELS = 178_956_970  # what Pillow itself refuses as a decompression bomb
# what Pillow's decoders raise for files that are not what they claim
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    Warning,  # where the user has turned warnings into errors
)


def read_image(path: Path) -> bytes:
    """All bytes of an image file. Raises InputError where it is missing, no regular file or larger than 1 GiB."""
    try:
        return read_regular(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"there is no image {printable(path)}: check the name") from error
    except OSError as error:
        raise InputError(f"the image {printable(path)} cannot be read: {error.strerror}: check the name") from error
    except ValueError as error:
        raise InputError(f"{printable(path)} is no image that can be read: {error}") from error


def open_image(path: str | Path, *, most_pixels: int = MOST_PIXELS) -> Any:
    """The one picture in an image file, decoded, as a Pillow image.

    Args:
        path: A regular file of one of `FORMATS`.
        most_pixels: A larger picture is refused before a byte of it is unpacked.

    Raises:
        InputError: It is missing, no regular file, no such image, damaged, too large, or holds several pictures.
        MissingPackage: Pillow is not installed.
    """
    return decode_image(read_image(Path(path)), printable(path), most_pixels=most_pixels)


def decode_image(
    data: bytes, name: str = "the file", *, formats: Iterable[str] = FORMATS, most_pixels: int = MOST_PIXELS
) -> Any:
    """The one picture in the bytes of an image file, decoded, as a Pillow image. Of a JPEG it is the first.

    Texts and profiles of a PNG are left out. Raises as `open_image`, calling the image by that name.
    """
    pillow = require("PIL.Image", "provenance")
    pillow.init()
    known = [kind for kind in formats if kind in pillow.OPEN]
    try:
        picture = one_picture(data)
    except ValueError as error:
        raise InputError(f"{name} is no image that can be read: {error}: save its picture anew, as PNG") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            image = pillow.open(io.BytesIO(picture), formats=known)
        require_size(image.size, name, most_pixels)
        require_still(image, name)
        image.load()
    except InputError:
        raise
    except pillow.DecompressionBombError as error:
        raise InputError(f"{name} would unpack to far too many pixels: scale it down") from error
    except pillow.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image that can be read (damaged, or of another format): save it as PNG"
        ) from error
    except UNREADABLE as error:
        reason = printable(error) or type(error).__name__
        raise InputError(f"{name} is no image that can be read ({reason}): save it as PNG") from error
    return image


def require_size(size: tuple[int, int], name: str, most_pixels: int = MOST_PIXELS) -> None:
    """Raises InputError for a (width, height) of more pixels."""
    if size[0] * size[1] > most_pixels:
        raise InputError(
            f"{name} would unpack to {size[0]}x{size[1]} pixels, over {most_pixels >> 20} megapixels: scale it down"
        )


def require_still(image: Any, name: str) -> None:
    """Raises InputError for a Pillow image that has frames or pages. A photo's second picture (MPO) is neither."""
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError(f"{name} is animated, or has several pages: save one of them as PNG and give that")
