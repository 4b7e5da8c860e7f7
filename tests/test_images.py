"""One way in for images: one picture, of bounded size, from a regular file; whatever else it is costs one line."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from cryptomnesia import containers
from cryptomnesia.audit.gallery import from_disk
from cryptomnesia.audit.images import _decoded
from cryptomnesia.audit.page import Exhibit
from cryptomnesia.containers import holds_more, one_picture
from cryptomnesia.errors import InputError
from cryptomnesia.images import (
    c2pa_path,
    caption_path,
    decode_image,
    images_among,
    open_image,
    png,
    sidecar_path,
)

LOSSY = ("JPEG", "GIF", "WEBP", "AVIF")
avif = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"))
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def encoded(kind="PNG", image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(data, part, before=b"IDAT"):
    at = data.index(before) - 4
    return data[:at] + part + data[at:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", avif])
def test_still_images_are_decoded(tmp_path, kind):
    path = tmp_path / "image"  # by what it is, not by its name
    path.write_bytes(encoded(kind))
    image = open_image(path)
    assert image.size == (40, 40) and (kind in LOSSY or np.array_equal(np.asarray(image), PIXELS))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", avif])
def test_frames_and_pages_are_refused(kind):
    other = Image.fromarray(255 - PIXELS)
    with pytest.raises(InputError, match=r"more than one picture|is animated, or has several pages") as error:
        decode_image(encoded(kind, save_all=True, append_images=[other]))
    assert "\n" not in str(error.value)


PNG = encoded()
ACTL = chunk(b"acTL", struct.pack(">II", 1, 0))
ODD = {
    "animation of one": with_chunk(PNG, ACTL),
    "two animation headers": with_chunk(PNG, ACTL + chunk(b"acTL", struct.pack(">II", 2, 0))),
    "animation header at the end": with_chunk(PNG, ACTL, b"IEND"),
    "frame data": with_chunk(PNG, chunk(b"fdAT", bytes(9)), b"IEND"),
    "frame control": with_chunk(PNG, chunk(b"fcTL", bytes(26)), b"IEND"),
    "data in two places": with_chunk(PNG, chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"x"), b"IEND"),
    "bytes behind": PNG + b"x",
    "a picture behind": PNG + PNG,
    "two headers": with_chunk(PNG, PNG[8:33]),
    "late transparency": with_chunk(PNG, chunk(b"tRNS", bytes(6)), b"IEND"),
    "two transparencies": with_chunk(PNG, chunk(b"tRNS", bytes(6)) * 2),
    "wrong checksum": with_chunk(PNG, chunk(b"tEXt", b"a\0b")[:-1] + b"x"),
    "no end": PNG[:-12],
    "nothing": PNG[:8],
    "huge chunk": PNG[:33] + b"\xff\xff\xff\xffIDAT",
    "WebP with a picture behind": encoded("WEBP") + b"more",
    "cut WebP": encoded("WEBP")[:-9],
}


@pytest.mark.parametrize("name", ODD)
def test_what_another_program_may_show_otherwise_is_refused(name):
    with pytest.raises(ValueError, match=r"it (holds|is)"):
        one_picture(ODD[name])
    with pytest.raises(InputError):
        decode_image(ODD[name])


def test_very_many_parts_are_refused(monkeypatch):
    monkeypatch.setattr(containers, "MOST_PARTS", 50)
    many = with_chunk(PNG, chunk(b"tEXt", b"a\0b") * 50)
    jpeg = encoded("JPEG")
    for data in (many, jpeg[:2] + b"\xff\xfe\0\x02" * 50 + jpeg[2:]):
        with pytest.raises(ValueError, match="too many parts"):
            one_picture(data)
    webp = b"RIFF" + struct.pack("<I", 4 + 60 * 8) + b"WEBP" + struct.pack("<4sI", b"EXIF", 0) * 60
    with pytest.raises(ValueError, match="too many parts"):
        one_picture(webp)


def test_texts_and_profiles_are_left_out_and_nothing_else():
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "x" * (2 << 20), zip=True)
    palette = Image.fromarray(PIXELS).quantize(8)
    palette.info["transparency"] = 3
    for image in (Image.fromarray(PIXELS), palette, Image.fromarray(PIXELS[..., 0] > 99)):
        plain = decode_image(encoded(image=image))
        found = decode_image(encoded(image=image, pnginfo=info, icc_profile=bytes(2 << 20)))
        assert found.mode == plain.mode and found.tobytes() == plain.tobytes()
        assert found.info.get("transparency") == plain.info.get("transparency")
    data = encoded()
    assert one_picture(data) is data


@pytest.mark.parametrize("progressive", [False, True])
def test_what_lies_behind_the_first_picture_of_a_photo_is_seen(progressive):
    plain = encoded("JPEG", progressive=progressive, comment=b"\xff\xd9\xff\xd8\xff")
    assert not holds_more(plain) and not holds_more(plain + bytes(99)) and not holds_more(PNG + PNG)
    other = Image.fromarray(255 - PIXELS)
    for more in (plain + plain, plain + b"ftyp", encoded("MPO", save_all=True, append_images=[other])):
        assert holds_more(more)
    photo = decode_image(encoded("MPO", save_all=True, append_images=[other], quality=95))
    assert np.array_equal(np.asarray(photo), np.asarray(decode_image(encoded("JPEG", quality=95))))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("place", ["pipe", "device", "folder", "absent", "a\0b"])
def test_no_place_keeps_anyone_waiting(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for look in (open_image, _decoded):
        with pytest.raises(InputError) as error:
            look(tmp_path / place)
        assert "\n" not in str(error.value)
    (shown,) = from_disk([Exhibit(0, 0, place, None, [])], tmp_path)
    assert shown.note == "the image cannot be read any more"


def test_names_of_files_are_one_harmless_line(tmp_path):
    with pytest.raises(InputError) as error:
        open_image(tmp_path / "x\n✓ intact\x1b[2J\u202e.png")
    assert str(error.value).isprintable()


def test_too_large_pictures_are_not_unpacked():
    for width in (60_000, 2**31 - 1):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0))
        data = PNG[:8] + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND")
        with pytest.raises(InputError, match="would unpack to"):
            decode_image(data)
    with pytest.raises(InputError, match="would unpack to 40x40 pixels"):
        decode_image(PNG, most_pixels=1599)


def test_what_lies_beside_an_image_and_what_is_called_like_one(tmp_path):
    image = tmp_path / "a.b.PNG"
    assert sidecar_path(image).name == "a.b.PNG.cryptomnesia.json" and c2pa_path(image).name == "a.b.PNG.c2pa"
    assert caption_path(image) == tmp_path / "a.b.txt"
    for name in ("b.webp", "a.b.PNG", "a.b.txt", "c.gif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in images_among(tmp_path.iterdir())] == ["a.b.PNG", "b.webp"]


def test_png_bytes_hold_the_same_pixels():
    for image in (PIXELS, Image.fromarray(PIXELS)):
        for small in (False, True):
            assert np.array_equal(np.asarray(decode_image(png(image, small=small))), PIXELS)
