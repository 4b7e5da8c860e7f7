"""Image files: how they are called, what lies beside them, and the one way in, bounded.

Whatever cannot be used is an InputError of one line.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .containers import one_picture
from .errors import InputError, require
from .files import read_file
from .printable import printable

SIDECAR, C2PA = ".cryptomnesia.json", ".c2pa"  # appended to an image's whole file name
BUNDLE = ".bundle.json"  # ends the name of what vouches for a folder
CAPTION = ".txt"  # in place of its ending
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
    """Returns all bytes of an image file. Raises InputError if it is missing, no regular file or over 1 GiB."""
    return read_file(path, MOST_BYTES, "image")


def sidecar_path(image: str | Path) -> Path:
    """Returns where the JSON sidecar of an image lies."""
    return _appended(Path(image), SIDECAR)


def c2pa_path(image: str | Path) -> Path:
    """Returns where the C2PA sidecar of an image lies."""
    return _appended(Path(image), C2PA)


def caption_path(image: str | Path) -> Path:
    """Returns where the text file lies that holds an image's prompt: IMAGE.txt beside IMAGE.png."""
    return Path(image).with_suffix(CAPTION)


def images_among(files: Iterable[Path]) -> list[Path]:
    """Returns those of the files that are called like images, in order of their names."""
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def no_images(folder: Path) -> InputError:
    """Returns the error for a folder without images, in one line."""
    return InputError(f"the folder {folder} holds no images ({', '.join(SUFFIXES)}): give another")


def open_image(path: str | Path, *, most_pixels: int = MOST_PIXELS) -> Any:
    """Returns the one picture in an image file, decoded, as a Pillow image.

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
    """Returns the one picture in the bytes of an image file, decoded, as a Pillow image. Of a JPEG it is the first.

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


def png(image: Any, *, small: bool = False) -> bytes:
    """Returns the bytes of a PNG file.

    Args:
        image: A Pillow image, or an array (H, W, 3 or 4) uint8.
        small: Whether size counts more than time.
    """
    picture = image if hasattr(image, "save") else require("PIL.Image", "provenance").fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=small)
    return buffer.getvalue()


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


def _appended(image: Path, ending: str) -> Path:
    return image.parent / f"{image.name}{ending}"
