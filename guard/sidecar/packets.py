"""XMP packets and other metadata inside PNG, JPEG and WebP files, put in and read without touching a pixel.

Nothing is decoded: the picture's own bytes stay as they are, and so do all other parts of the file.
References: PNG 1.2 section 4.2.3; JPEG, XMP Specification Part 3 section 1.1.3; WebP Container Specification.
"""

import struct
import zlib
from collections.abc import Callable, Iterator

from ..containers import JPEG, MOST_PARTS, PNG, media_type
from ..errors import SidecarError

MOST = 1 << 20  # bytes of an XMP packet that is read
MOST_IN_JPEG = 65_502  # bytes of a packet in the one segment that every reader knows
_KEYWORD = b"XML:com.adobe.xmp"
_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF = b"Exif\0\0"
_APP0, _APP1, _SCAN = 0xE0, 0xE1, 0xDA
_XMP_FLAG, _EXIF_FLAG, _ALPHA_FLAG = 0x04, 0x08, 0x10


def read_packet(data: bytes) -> bytes | None:
    """Returns the XMP packet in the bytes of a PNG, JPEG or WebP file; None where there is none.

    Raises SidecarError for one of over 1 MiB, for several, and for a file whose parts cannot be told apart.
    """
    kind = media_type(data)
    try:
        if kind == "image/png":
            found = [_text(data[start:end]) for name, start, end in _chunks(data) if name == b"iTXt"]
            packets = [packet for packet in found if packet is not None]
        elif kind == "image/jpeg":
            bodies = [data[start:end] for marker, start, end in _segments(data) if marker == _APP1]
            packets = [body[len(_NAMESPACE) :] for body in bodies if body.startswith(_NAMESPACE)]
        elif kind == "image/webp":
            packets = [data[start:end] for name, start, end in _riff(data) if name == b"XMP "]
        else:
            return None
    except (ValueError, zlib.error) as error:
        raise SidecarError(f"the XMP cannot be read ({error}): save the image anew") from error
    if len(packets) > 1:
        raise SidecarError("the image holds more than one XMP packet, and readers differ in which they believe")
    if packets and len(packets[0]) > MOST:
        raise SidecarError("the XMP is larger than 1 MiB, so it is not read")
    return packets[0] if packets else None


def with_packet(data: bytes, packet: bytes, size: tuple[int, int]) -> bytes:
    """Returns the file with this XMP packet, in the place of one that it may have.

    Args:
        data: All bytes of a PNG, JPEG or WebP file.
        packet: The packet, UTF-8.
        size: Width and height in pixels, which a simple WebP file must tell anew.

    Raises:
        SidecarError: Another format, parts that cannot be told apart, or a packet too large for a JPEG.
    """
    kind = media_type(data)
    try:
        if kind == "image/png":
            body = _KEYWORD + b"\0\0\0\0\0" + packet
            return _png(data, _chunk(b"iTXt", body), lambda part: part[4:8] == b"iTXt" and _text(part) is not None)
        if kind == "image/jpeg":
            if len(packet) > MOST_IN_JPEG:
                raise ValueError("it is too large for a JPEG")
            return _jpeg(data, _NAMESPACE + packet, _NAMESPACE)
        if kind == "image/webp":
            return _webp(data, b"XMP ", packet, _XMP_FLAG, size)
    except (ValueError, zlib.error) as error:
        raise SidecarError(f"XMP cannot be put into the image ({error}): save it anew, as PNG") from error
    raise SidecarError("XMP cannot be put into such a file: save it as PNG, JPEG or WebP")


def with_text(data: bytes, keyword: str, text: str, size: tuple[int, int]) -> bytes:
    """Returns the file with a text that people's tools look for: a text chunk of a PNG, else EXIF's user comment.

    A file that has such a text, or EXIF of its own, is returned as it is. Raises SidecarError as `with_packet` does.
    """
    kind = media_type(data)
    try:
        if kind == "image/png":
            key = keyword.encode("latin-1") + b"\0"
            texts = (b"tEXt", b"zTXt", b"iTXt")
            if any(data[at + 8 : at + 8 + len(key)] == key for name, at, _ in _chunks(data) if name in texts):
                return data
            latin = text.isascii() or _fits(text)
            body = key + (text.encode("latin-1") if latin else b"\0\0\0\0" + text.encode())
            return _png(data, _chunk(b"tEXt" if latin else b"iTXt", body), lambda part: False)
        exif = _user_comment(text)
        if kind == "image/jpeg":
            if len(exif) > MOST_IN_JPEG:
                raise ValueError("the text is too large for a JPEG")
            taken = any(data[s:e].startswith(_EXIF) for marker, s, e in _segments(data) if marker == _APP1)
            return data if taken else _jpeg(data, _EXIF + exif, _EXIF)
        if kind == "image/webp":
            taken = any(name == b"EXIF" for name, _, _ in _riff(data))
            return data if taken else _webp(data, b"EXIF", exif, _EXIF_FLAG, size)
    except (ValueError, zlib.error) as error:
        raise SidecarError(f"the text cannot be put into the image ({error}): save it anew, as PNG") from error
    return data


def _fits(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _user_comment(text: str) -> bytes:
    """EXIF with one entry, the user comment in UTF-16, big-endian as others write it: an IFD that points to another."""
    comment = b"UNICODE\0" + text.encode("utf-16-be", "replace")
    first = struct.pack(">HHHLLL", 1, 0x8769, 4, 1, 8 + 18, 0)
    second = struct.pack(">HHHLLL", 1, 0x9286, 7, len(comment), 8 + 18 + 18, 0)
    return b"MM\0*" + struct.pack(">L", 8) + first + second + comment


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk of a PNG, and where it starts and ends."""
    at = len(PNG)
    for _ in range(MOST_PARTS):
        if at + 12 > len(data):
            raise ValueError("it is cut off")
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if at + 12 + size > len(data):
            raise ValueError("it is cut off")
        yield kind, at, at + 12 + size
        at += 12 + size
        if kind == b"IEND":
            return
    raise ValueError("it has too many parts")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text(part: bytes) -> bytes | None:
    """The packet in a whole iTXt chunk, or None where it holds another text. Raises ValueError."""
    body = part[8:-4]
    if not body.startswith(_KEYWORD + b"\0"):
        return None
    packed, _, rest = body[len(_KEYWORD) + 1], body[len(_KEYWORD) + 2], body[len(_KEYWORD) + 3 :]
    pieces = rest.split(b"\0", 2)
    if len(pieces) != 3:
        raise ValueError("a text chunk is cut off")
    if not packed:
        return pieces[2]
    return zlib.decompressobj().decompress(pieces[2], MOST + 1)  # one byte more is told as too large


def _png(data: bytes, new: bytes, replaced: Callable[[bytes], bool]) -> bytes:
    kept = [data[start:end] for _, start, end in _chunks(data)]
    kept = [part for part in kept if not replaced(part)]
    return b"".join([PNG, kept[0], new, *kept[1:]])


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment of a JPEG before its picture, and where its content starts and ends."""
    at = 2
    for _ in range(MOST_PARTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError("it is cut off")
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN or marker == 0xD9:
            return
        if size < 2 or at + 2 + size > len(data):
            raise ValueError("it is cut off")
        yield marker, at + 4, at + 2 + size
        at += 2 + size
    raise ValueError("it has too many parts")


def _jpeg(data: bytes, body: bytes, replaced: bytes) -> bytes:
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    kept, at, place = [], 2, 0
    for marker, start, end in _segments(data):
        if marker == _APP1 and data[start:end].startswith(replaced):
            kept.append(data[at : start - 4])
            at = end
        if marker == _APP0 or (marker == _APP1 and data[start:end].startswith(_EXIF)):
            kept.append(data[at:end])  # JFIF and EXIF come first
            at, place = end, len(kept)
    kept.insert(place, segment)
    return JPEG[:2] + b"".join([*kept, data[at:]])


def _riff(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a WebP, and where its content starts and ends."""
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MOST_PARTS):
        if at + 8 > end:
            return
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if at + 8 + size > len(data):
            raise ValueError("it is cut off")
        yield name, at + 8, at + 8 + size
        at += 8 + size + size % 2
    raise ValueError("it has too many parts")


def _webp(data: bytes, name: bytes, body: bytes, flag: int, size: tuple[int, int]) -> bytes:
    parts = [(kind, data[start:end]) for kind, start, end in _riff(data) if kind != name]
    if not parts:
        raise ValueError("it is cut off")
    if parts[0][0] == b"VP8X":
        head = bytearray(parts.pop(0)[1])
    else:
        # a VP8L picture tells in its fifth byte's upper bits whether it has transparency
        picture = parts[0][1]
        alpha = parts[0][0] == b"VP8L" and len(picture) > 4 and picture[4] & 0x10
        width, height = size
        head = bytearray(10)
        head[0] = _ALPHA_FLAG if alpha else 0
        head[4:7], head[7:10] = (width - 1).to_bytes(3, "little"), (height - 1).to_bytes(3, "little")
    head[0] |= flag
    whole = b"".join(_part(*part) for part in [(b"VP8X", bytes(head)), *parts, (name, body)])
    return b"RIFF" + (len(whole) + 4).to_bytes(4, "little") + b"WEBP" + whole


def _part(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)
