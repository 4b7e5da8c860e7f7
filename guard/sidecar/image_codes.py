"""The image code of ISO 24138 (ISCC): 256 bits of what a picture looks like, by which it is found again.

Copies that were encoded anew, resized or stripped of their metadata have codes near by; nothing is put into the
picture. Before the code, a picture is laid on white where it is transparent, its even border is cut off and it is
scaled to 32x32 in grey, as that standard's own tools do.
"""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, require

BITS = 256
ALGORITHM = "io.iscc.v0"  # its name in C2PA's list of soft bindings
_PREFIX = "ISCC:"
_HEADER = b"\x21\x07"  # content code of an image, version 0, 256 bits
_SIDE = 32
_FEWEST = 8  # bits that are set in each 64 of a code that says something
_TOLERANCE = 16  # levels that a border's pixels may differ from its corner, as after JPEG
_PASSES = 16
_LARGE = 16 << 20  # pixels


def image_code(image: Any) -> str:
    """Returns the code of a picture, "ISCC:..." of 256 bits.

    Args:
        image: A Pillow image.

    Raises:
        MissingPackage: iscc-lib is not installed.
    """
    iscc = require("iscc_lib", "provenance")
    return iscc.gen_image_code_v0(_grey(image).tobytes(), BITS)["iscc"]


def says_nothing(code: str) -> bool:
    """Returns whether a code is that of many pictures: of one colour, of a plain gradient, of stripes.

    Each 64 bits are set where one of 64 frequencies is above their median, so half of them are, unless most frequencies
    are equal, since they are absent. Raises InputError as `unit` does.
    """
    return bool(count(bits(code)).min() < _FEWEST)


def unit(code: str) -> bytes:
    """Returns the 34 bytes of a code, header first. Raises InputError for what is no image code of 256 bits."""
    text = code.removeprefix(_PREFIX)
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise InputError("an image code is ISCC: and letters of base 32: compute it anew") from error
    if not code.startswith(_PREFIX) or len(data) != len(_HEADER) + BITS // 8 or data[:2] != _HEADER:
        raise InputError("it is no image code of ISO 24138 with 256 bits: compute it anew")
    return data


def bits(code: str) -> NDArray[np.uint64]:
    """Returns the 256 bits of a code as (4,) uint64. Raises InputError as `unit` does."""
    return np.frombuffer(unit(code)[len(_HEADER) :], dtype="<u8").astype(np.uint64)


def distance(one: str, other: str) -> int:
    """Returns in how many of 256 bits two codes differ; unlike pictures differ in about 128."""
    return int(count(bits(one) ^ bits(other)).sum())


def count(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns how many bits are set in each uint64."""
    counted = getattr(np, "bitwise_count", None)  # numpy 2
    if counted is not None:
        return counted(words).astype(np.int64)
    packed = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 8)
    return np.unpackbits(packed, axis=-1).sum(axis=-1, dtype=np.int64)


def _grey(image: Any) -> Any:
    """The picture as the code takes it: Pillow's L, 32x32."""
    pillow = require("PIL.Image", "provenance")
    picture = _on_white(_transposed(_eight_bits(image)), pillow)
    if picture.width * picture.height > _LARGE:  # or looking for a border takes gigabytes
        picture = picture.reduce(int((picture.width * picture.height / _LARGE) ** 0.5) + 1)
    picture = _trimmed(picture)
    return picture.convert("L").resize((_SIDE, _SIDE), pillow.Resampling.BICUBIC)


def _eight_bits(image: Any) -> Any:
    """A picture of 16 bits as one of 8: Pillow would cut it off at white."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return require("PIL.Image", "provenance").fromarray(levels.astype(np.uint8))
    return image


def _transposed(image: Any) -> Any:
    """The picture as people see it, after EXIF's orientation."""
    operations = require("PIL.ImageOps", "provenance")
    try:
        return operations.exif_transpose(image) or image
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError):  # EXIF that is none
        return image


def _on_white(image: Any, pillow: Any) -> Any:
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "La", "RGBa"):
        picture = image.convert("RGBA")
        white = pillow.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return image.convert("RGB")


def _trimmed(image: Any) -> Any:
    """The picture without a border of one colour, such as a site or a screenshot adds."""
    pixels = np.asarray(image, dtype=np.int16)
    for _ in range(_PASSES):
        odd = np.abs(pixels - pixels[0, 0]).max(axis=2) > _TOLERANCE
        rows, columns = np.flatnonzero(odd.any(axis=1)), np.flatnonzero(odd.any(axis=0))
        if not len(rows):
            break
        cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        sides = sum(
            (
                rows[0] > 0,
                columns[0] > 0,
                rows[-1] + 1 < pixels.shape[0],
                columns[-1] + 1 < pixels.shape[1],
            )
        )
        if sides == 0:
            break
        if sides == 1:  # the sky of a picture is no border: only a quite even one is
            close = np.abs(pixels - pixels[0, 0]).max(axis=2) > _TOLERANCE // 2
            near = (np.flatnonzero(close.any(axis=1)), np.flatnonzero(close.any(axis=0)))
            same = all(a[0] == b[0] and a[-1] == b[-1] for a, b in zip(near, (rows, columns), strict=True))
            if not same:
                break
        pixels = cut
    return require("PIL.Image", "provenance").fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
