"""SHA-256 of files, texts and decoded pixels.

Pixels are digested as Pillow decodes them: the mode, the size and the raw bytes of the one picture in the file, the
first one of a JPEG. Palettes and separate transparency are resolved first; EXIF orientation, colour profiles and every
other metadata play no part. So the digest survives stripped metadata and lossless re-encoding. Depths over 8 bits per
channel count as far as Pillow keeps them, and two decoders may differ in the last bit of a JPEG.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, SidecarError
from ..files import open_regular
from ..images import UNREADABLE, decode_image
from ..printable import printable

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")


@dataclass(frozen=True)
class Pixels:
    """Digest of an image's decoded pixels.

    Attributes:
        sha256: The digest in hex.
        mode: Pillow's name for the channels, e.g. "RGB".
        width, height: Size in pixels.
    """

    sha256: str
    mode: str
    width: int
    height: int


def bytes_sha256(data: bytes) -> str:
    """Returns the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def text_sha256(text: str) -> str:
    """Returns the SHA-256 of the UTF-8 text, in hex, without salt: who guesses a short prompt can confirm the guess."""
    return bytes_sha256(text.encode("utf-8", "replace"))


def file_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file of any size, in hex, e.g. of model weights.

    Raises SidecarError if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise SidecarError(
            f"{path} cannot be read for its digest: {getattr(error, 'strerror', None) or error}"
        ) from error
    return digest.hexdigest()


def pixels_of(data: bytes) -> Pixels:
    """Returns the digest of the pixels of an encoded PNG, JPEG, WebP or AVIF image.

    Raises:
        InputError: It is malformed, of another format, has more than 179 million pixels, or holds several pictures
            (but those behind the first one of a JPEG are passed over).
        MissingPackage: Pillow is not installed.
    """
    image = decode_image(data, formats=FORMATS)
    try:
        picture = _resolved(image)
        pixels = picture.tobytes()
    except UNREADABLE as error:
        raise InputError(f"the pixels cannot be had ({printable(error)}): save the image as PNG") from error
    digest = hashlib.sha256(b"cryptomnesia/pixels/1\n")
    digest.update(f"{picture.mode} {picture.width}x{picture.height}\n".encode())
    digest.update(pixels)
    return Pixels(digest.hexdigest(), picture.mode, *picture.size)


def _resolved(image: Any) -> Any:
    """The picture with palette and transparency as plain channels, whichever way the file spells them."""
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        return image.convert("RGBA")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" else "RGB")
    return image
