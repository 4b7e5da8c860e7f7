"""SHA-256 of files, texts and decoded pixels.

Pixels are digested as Pillow decodes them: per frame, the mode, the size and the raw bytes. Palettes and separate
transparency are resolved first; EXIF orientation, colour profiles and every other metadata play no part. So the digest
survives stripped metadata and lossless re-encoding. Depths over 8 bits per channel count as far as Pillow keeps them,
and two decoders may differ in the last bit of a JPEG.
"""

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, SidecarError, require

MOST_PIXELS = 178_956_970  # over all frames; what Pillow itself refuses as a decompression bomb
MOST_IMAGE_BYTES = 1 << 30
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
# what Pillow's decoders raise for files that are not what they claim
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
    Warning,  # where the user has turned warnings into errors
)


@dataclass(frozen=True)
class Pixels:
    """Digest of an image's decoded pixels.

    Attributes:
        sha256: Of all frames, in hex.
        mode: Pillow's name for the channels of the first frame, e.g. "RGB".
        width, height: Of the first frame, in pixels.
    """

    sha256: str
    mode: str
    width: int
    height: int


def bytes_sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of the UTF-8 text, in hex, without salt: whoever guesses a short prompt can confirm the guess."""
    return bytes_sha256(text.encode("utf-8", "replace"))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file of any size, in hex, e.g. of model weights. Raises SidecarError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise SidecarError(f"{path} cannot be read for its digest: {getattr(error, 'strerror', error)}") from error
    return digest.hexdigest()


def media_type(data: bytes) -> str | None:
    """The media type by the first bytes, or None unless it is a PNG, JPEG or WebP image."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def pixels_of(data: bytes) -> Pixels:
    """Digests the pixels of an encoded PNG, JPEG or WebP image.

    Raises:
        InputError: It is malformed, of another format, or has more than 179 million pixels.
        MissingPackage: Pillow is not installed.
    """
    pillow = require("PIL.Image", "provenance")
    bombs = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    pillow.init()
    formats = [name for name in FORMATS if name in pillow.OPEN]  # never the formats that start other programs
    try:
        with pillow.open(io.BytesIO(data), formats=formats) as image:
            return _digest(image)
    except bombs as error:
        raise InputError("the image has too many pixels to be decoded safely") from error
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError("the image cannot be decoded: it is damaged, or no PNG, JPEG or WebP") from error


def _digest(image: Any) -> Pixels:
    digest, left, first = hashlib.sha256(b"cryptomnesia/pixels/1\n"), MOST_PIXELS, None
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        left -= image.width * image.height
        if left < 0:
            raise InputError("the image has too many pixels to be decoded safely")
        frame = _resolved(image)
        first = first or (frame.mode, *frame.size)
        digest.update(f"{frame.mode} {frame.width}x{frame.height}\n".encode())
        digest.update(frame.tobytes())
    if first is None:
        raise InputError("the image has no frame")
    return Pixels(digest.hexdigest(), *first)


def _resolved(image: Any) -> Any:
    """The frame with palette and transparency as plain channels, whichever way the file spells them."""
    image.load()
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        return image.convert("RGBA")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" else "RGB")
    return image
