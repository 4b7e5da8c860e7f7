"""What image files hold beside their picture, before any decoder sees them.

Decoders differ in what they make of a file with several pictures in it: a browser may show one that Pillow never
decodes. So only one picture may be in it, save in JPEG, whose first picture every program shows.
"""

import re
import struct
import zlib
from collections.abc import Iterator

MOST_PARTS = 1 << 18  # chunks or segments of a file; a large photo has a few thousand
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ANIMATION = {b"acTL", b"fcTL", b"fdAT", b"ANIM", b"ANMF"}
_ONCE = {b"IHDR", b"PLTE", b"tRNS"}
_WEBP_PICTURES = {b"VP8 ", b"VP8L"}
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # not what entropy-coded data may hold
_END, _APP2 = 0xD9, 0xE2


def media_type(data: bytes) -> str | None:
    """Returns the media type by the first bytes, or None unless it is a PNG, JPEG, WebP or AVIF image."""
    if data.startswith(PNG):
        return "image/png"
    if data.startswith(JPEG):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and b"avif" in data[8:64]:
        return "image/avif"
    return None


def one_picture(data: bytes) -> bytes:
    """Returns the file with its one picture; of a PNG without texts and profiles, which may be of any size.

    What decides about pixels is kept byte for byte. Other formats than PNG, JPEG and WebP are not looked into.

    Raises:
        ValueError: It holds several pictures, something after its end, very many parts, or is damaged; one line says
            which.
    """
    kind = media_type(data)
    if kind == "image/png":
        return _png(data)
    if kind == "image/webp":
        _require_still_webp(data)
    elif kind == "image/jpeg":
        holds_more(data)
    return data


def holds_more(data: bytes) -> bool:
    """Returns whether a JPEG file holds anything after its first picture, such as a second one or a phone's gain map.

    Raises ValueError for very many segments.
    """
    if not data.startswith(JPEG):
        return False
    at, more = 2, False
    for _ in range(MOST_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            return more
        marker, at = found[1][0], found.end()
        if marker == _END:
            return more or bool(data[at:].strip(b"\0"))
        more = more or (marker == _APP2 and data[at + 2 : at + 6] == b"MPF\0")
        at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError("it has too many parts")


def _png(data: bytes) -> bytes:
    kept, before, left_out, seen = [], b"", False, set()
    for kind, start, end in _png_chunks(data):
        if not seen and kind != b"IHDR":
            raise ValueError("it is damaged: it does not begin with its header")
        if kind in _ANIMATION:
            raise ValueError("it holds more than one picture (an animated PNG)")
        if kind == b"IDAT" and kind in seen and before != kind:
            raise ValueError("it holds more than one picture (its data lie in several places)")
        if kind in _ONCE and (kind in seen or b"IDAT" in seen):
            raise ValueError(f"it is damaged: {kind.decode()} where none may be")
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(data[start:end])
        else:
            left_out = True
        seen.add(kind)
        before = kind
    return PNG + b"".join(kept) if left_out else data


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where it starts and ends."""
    at = len(PNG)
    for _ in range(MOST_PARTS):
        if at + 12 > len(data):
            raise ValueError("it is cut off")
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + size
        if end > len(data):
            raise ValueError("it is cut off")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("it is damaged: a checksum is wrong")
        yield kind, at, end
        if kind == b"IEND":
            if end < len(data):
                raise ValueError(f"it holds {len(data) - end} bytes after its end")
            return
        at = end
    raise ValueError("it has too many parts")


def _require_still_webp(data: bytes) -> None:
    at, end, pictures = 12, 8 + int.from_bytes(data[4:8], "little"), 0
    if end > len(data):
        raise ValueError("it is cut off")
    if end + end % 2 < len(data):
        raise ValueError(f"it holds {len(data) - end} bytes after its end")
    for _ in range(MOST_PARTS):
        if at + 8 > end:
            return
        kind, size = struct.unpack("<4sI", data[at : at + 8])
        pictures += kind in _WEBP_PICTURES
        if kind in _ANIMATION or pictures > 1:
            raise ValueError("it holds more than one picture (an animated WebP)")
        at += 8 + size + size % 2
    raise ValueError("it has too many parts")
