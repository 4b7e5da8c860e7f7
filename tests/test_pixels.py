"""Images of every size and mode: what is read alike, and what is refused in one line."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.errors import InputError
from cryptomnesia.pixels import fitted, read_picture
from cryptomnesia.prompts.recorded import recorded_prompt


@pytest.fixture
def grey():
    return np.tile(np.arange(0, 240, 6, dtype=np.uint8), (40, 1))


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "YCbCr", "LAB"])
@pytest.mark.parametrize("from_file", [True, False])
def test_modes_are_brought_to_rgb(tmp_path, grey, mode, from_file):
    image = Image.fromarray(grey).convert("RGB").convert(mode)
    name = "image.tif" if mode in ("CMYK", "YCbCr", "LAB") else "image.png"
    found = read_picture(saved(tmp_path, image, name) if from_file else image)
    assert found.shape == (1, 3, 40, 40) and found.dtype == torch.float32
    if mode not in ("P", "1"):
        expected = torch.from_numpy(grey).float() / 255
        assert (found - expected).abs().max() < 0.02


def test_sixteen_bit_grey_keeps_its_range(tmp_path, grey):
    path = saved(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257))
    torch.testing.assert_close(read_picture(path)[0, 0], torch.from_numpy(grey).float() / 255)
    big = saved(tmp_path, Image.fromarray(grey.astype(">u2") * 257), "big.tif")
    torch.testing.assert_close(read_picture(big)[0, 0], torch.from_numpy(grey).float() / 255)


def test_sixteen_bit_colour(tmp_path, grey):
    rows = np.stack([grey.astype(">u2") * 257] * 3, -1)
    path = tmp_path / "deep.png"
    path.write_bytes(png(40, 40, b"".join(b"\0" + row.tobytes() for row in rows), depth=16))
    torch.testing.assert_close(read_picture(path)[0, 0], torch.from_numpy(grey).float() / 255, atol=0.005, rtol=0)


def test_arrays_and_tensors_are_the_same_image(grey):
    colour = np.stack([grey] * 3, -1)
    expected = torch.from_numpy(colour).permute(2, 0, 1)[None].float() / 255
    for image in (colour, colour / 255.0, colour.astype(np.uint16) * 257, grey, expected, expected[0]):
        torch.testing.assert_close(read_picture(image), expected)


def png(width, height, rows=b"", depth=8):
    """A colour PNG of that size with these rows, in full or not at all."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (60000, 60000)])
def test_decompression_bombs_are_not_unpacked(tmp_path, width, height):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(width, height))  # says it is huge, and holds nothing
    with pytest.raises(InputError, match="would unpack to"):
        read_picture(bomb)


def test_animations_are_refused(tmp_path, grey):
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is animated"):
        read_picture(path)


def test_a_photo_with_a_second_picture_is_read_by_its_first(tmp_path, grey):
    path = saved(
        tmp_path,
        Image.fromarray(grey),
        "photo.jpg",
        format="MPO",
        save_all=True,
        append_images=[Image.fromarray(255 - grey)],
    )
    alone = read_picture(saved(tmp_path, Image.fromarray(grey), "alone.jpg"))
    opened = Image.open(path)
    assert opened.n_frames == 2
    assert torch.equal(read_picture(path), alone) and torch.equal(read_picture(opened), alone)


def test_transparent_parts_are_refused(grey):
    image = Image.fromarray(grey).convert("RGBA")
    image.putalpha(128)
    with pytest.raises(InputError, match="transparent parts"):
        read_picture(image)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), "has 8x8 pixels, which say nothing"),
        (np.zeros((40, 40, 2), np.uint8), r"an array is \(height, width, 3\)"),
        (np.zeros((40, 40, 3), np.int64), "pixels of type int64"),
        (np.full((40, 40, 3), np.nan), r"values outside \[0, 1\], or NaN"),
        (np.full((40, 40, 3), 200.0), "divide 8-bit pixels by 255"),
        (torch.zeros(2, 3, 40, 40), r"a tensor is \(3, H, W\)"),
        (Image.new("F", (40, 40)), "floating-point pixels"),
    ],
)
def test_what_is_no_image_costs_one_line(image, words):
    with pytest.raises(InputError, match=words) as error:
        read_picture(image)
    assert "\n" not in str(error.value)


def test_files_that_are_no_images(tmp_path, grey):
    with pytest.raises(InputError, match="there is no image"):
        read_picture(tmp_path / "nothing.png")
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(InputError, match="no image that can be read"):
        read_picture(text)
    cut = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)))
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(InputError, match="no image that can be read"):
        read_picture(cut)
    os.mkfifo(tmp_path / "pipe.png")
    for place in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(InputError, match="no image that can be read"):
            read_picture(place)
        assert recorded_prompt(place) is None


def test_other_sizes_are_resized_and_cut_around_the_centre():
    image = torch.rand(1, 3, 64, 64)
    assert fitted(image, (64, 64)) is image
    wide = torch.zeros(1, 3, 32, 96)
    wide[..., 32:64] = 1
    assert (fitted(wide, (32, 32)) == 1).all()
    for size in ((16, 16), (48, 80), (128, 128)):
        found = fitted(image, size)
        assert found.shape[-2:] == size and found.min() >= 0 and found.max() <= 1
