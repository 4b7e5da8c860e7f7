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

from .errors import InputError, require

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
    """Returns the code of a picture, "ISCC:..." of 256 bits, with its even border cut off.

    Args:
        image: A Pillow image.

    Raises:
        MissingPackage: iscc-lib is not installed.
    """
    return _code(_trimmed(plain(image)))


def codes_to_find(image: Any) -> tuple[str, ...]:
    """Returns the codes by which a picture is found again: its code, and that with its border, where that is another.

    Where a border ends is not sure in a copy, e.g. in a smooth picture after JPEG; and of a screenshot only what lies
    in the page counts. Codes that say nothing are left out. Raises as `image_code` does.
    """
    picture = plain(image)
    codes = dict.fromkeys((_code(_trimmed(picture)), _code(picture)))
    return tuple(code for code in codes if not says_nothing(code))


def _code(picture: Any) -> str:
    """The code of an RGB picture as it is, in grey, 32x32."""
    resampling = require("PIL.Image", "provenance").Resampling.BICUBIC
    pixels = picture.convert("L").resize((_SIDE, _SIDE), resampling).tobytes()
    return require("iscc_lib", "provenance").gen_image_code_v0(pixels, BITS)["iscc"]


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


def plain(image: Any) -> Any:
    """Returns a Pillow image as RGB as people see it: 8 bits, turned after EXIF, on white; a very large one smaller."""
    picture = _on_white(_transposed(_eight_bits(image)), require("PIL.Image", "provenance"))
    if picture.width * picture.height > _LARGE:  # or looking for a border takes gigabytes
        picture = picture.reduce(int((picture.width * picture.height / _LARGE) ** 0.5) + 1)
    return picture


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
    for _ in range(_PASSES):
        box = _box(image, _TOLERANCE)
        if box is None or box == (0, 0, *image.size):
            break
        cut = sum((box[0] > 0, box[1] > 0, box[2] < image.width, box[3] < image.height))
        if cut == 1 and _box(image, _TOLERANCE // 2) != box:  # a sky is no border: only a quite even one is
            break
        image = image.crop(box)
    return image


def _box(image: Any, tolerance: int) -> tuple[int, int, int, int] | None:
    """What differs from the upper left corner by more levels than that; None where nothing does."""
    pillow, chops = require("PIL.Image", "provenance"), require("PIL.ImageChops", "provenance")
    corner = pillow.new("RGB", image.size, image.getpixel((0, 0)))
    return chops.difference(image, corner).point([255 * (level > tolerance) for level in range(256)] * 3).getbbox()
