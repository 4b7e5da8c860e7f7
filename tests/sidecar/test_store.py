"""The store: finds stripped and changed copies by their content, and no stranger; and what can be wrong with it."""

import base64
import io
import os
import shutil
import sqlite3
import stat
import sys

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.errors import InputError, MissingPackage, SidecarError
from cryptomnesia.image_codes import bits, codes_to_find, count, distance, says_nothing, unit
from cryptomnesia.sidecar import Generation, Pixels, Store, image_code, save, sidecar_path, statement, verify
from cryptomnesia.sidecar import store as module

from ..helpers.provenance import GENERATION, REPORT, document

GENERATED = Generation(host="test 1")


def scene(seed: int, side: int = 128) -> Image.Image:
    """A picture of its own with large and small parts, as photographs have: no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def said(number: int = 0, name: str = "a.png") -> dict:
    return statement(name, f"{number:064x}", Pixels(f"{number:064x}", "RGB", 1, 1), None, GENERATED)


def code(data: bytes) -> str:
    return "ISCC:" + base64.b32encode(b"\x21\x07" + data).decode().rstrip("=")


def near(start: bytes, differing: int) -> str:
    """A code that differs in so many bits, spread over all of it."""
    data = bytearray(start)
    for place in np.linspace(0, 255, differing).astype(int) if differing else ():
        data[place // 8] ^= 1 << place % 8
    return code(bytes(data))


def coarse(start: bytes, differing: int) -> int:
    """In how many of the first 64 bits such a code differs, counted by hand."""
    other = unit(near(start, differing))[2:10]
    return sum(bin(a ^ b).count("1") for a, b in zip(start[:8], other, strict=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of ten scenes."""
    folder = tmp_path_factory.mktemp("filled")
    for seed in range(10):
        save(scene(seed), folder / f"{seed}.png", REPORT, GENERATION, store=folder / "store")
    return folder / "store"


@pytest.fixture
def kept(tmp_path, filled):
    """A copy of it, the images of which are elsewhere."""
    return shutil.copytree(filled, tmp_path / "store")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


COPIES = {
    "the same pixels": lambda image: encoded(image, "PNG"),
    "JPEG 60": lambda image: encoded(image, "JPEG", quality=60),
    "WebP": lambda image: encoded(image, "WEBP", quality=75),
    "half the size": lambda image: encoded(image.resize((64, 64)), "PNG"),
    "twice the size": lambda image: encoded(image.resize((256, 256)), "JPEG"),
    "grey": lambda image: encoded(image.convert("L"), "PNG"),
    "with a border": lambda image: encoded(bordered(image), "PNG"),
}


def bordered(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (200, 180), (30, 30, 30))
    page.paste(image, (40, 20))
    return page


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found_again(tmp_path, kept, how):
    (tmp_path / "copy").write_bytes(COPIES[how](scene(4)))
    found = verify(tmp_path / "copy", store=kept)
    assert (found.result, found.matches, found.vouched) == ("found again", False, False)
    assert found.found[0]["name"] == "4.png" and len(found.found) == 1
    assert found.found[0]["same_pixels"] == (how == "the same pixels")
    assert "matches the record of 4.png" in found.headline
    assert "by content, not by signature" in found.lines[-1]


def test_strangers_are_not_found(tmp_path, kept):
    for seed in range(100, 130):
        (tmp_path / "a.png").write_bytes(encoded(scene(seed), "PNG"))
        found = verify(tmp_path / "a.png", store=kept)
        assert (found.result, found.found) == ("cannot tell", [])


def test_a_changed_image_stays_changed_though_it_is_found(tmp_path, kept):
    save(scene(4), tmp_path / "a.png", REPORT, GENERATION)
    (tmp_path / "a.png").write_bytes(encoded(scene(4), "JPEG"))
    found = verify(tmp_path / "a.png", store=kept)
    assert found.result == "changed" and found.found[0]["name"] == "4.png"


def test_even_pictures_are_found_by_their_pixels_alone(tmp_path):
    for colour in (10, 200):
        even = Image.new("RGB", (64, 64), (colour,) * 3)
        save(even, tmp_path / f"{colour}.png", None, GENERATION, store=tmp_path / "store")
        sidecar_path(tmp_path / f"{colour}.png").unlink()
    stripes = np.tile(np.repeat([[0, 200]], 16, axis=1), (64, 2)).astype(np.uint8)
    for even in (Image.new("L", (9, 9)), Image.linear_gradient("L"), Image.fromarray(stripes)):
        assert says_nothing(image_code(even))
        assert codes_to_find(even) == ()
    assert not any(says_nothing(image_code(scene(seed))) for seed in range(20))
    assert len(codes_to_find(bordered(scene(4)))) == 2 and codes_to_find(scene(4))[0] == image_code(scene(4))
    assert [one["name"] for one in verify(tmp_path / "200.png", store=tmp_path / "store").found] == ["200.png"]
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "other.png")
    assert verify(tmp_path / "other.png", store=tmp_path / "store").result == "cannot tell"


def test_the_distance_is_that_of_all_bits_and_the_nearest_comes_first(tmp_path):
    start = np.random.default_rng(0).bytes(32)
    with Store.open(tmp_path, make=True) as kept:
        kept.add_all([(said(n, f"{n}.png"), [near(start, n)]) for n in (30, 3, 0, 24, 25, 9)])
        wide = kept.find([near(start, 0)], coarse=64, fine=24)
        assert [(m.distance, m.name) for m in wide] == [(0, "0.png"), (3, "3.png"), (9, "9.png"), (24, "24.png")]
        assert [m.coarse for m in wide] == [coarse(start, n) for n in (0, 3, 9, 24)]
        assert [m.name for m in kept.find([near(start, 0)], coarse=2, fine=256)] == ["0.png", "3.png"]
        assert [m.distance for m in kept.find([near(start, 0)], most=2)] == [0, 3]
        # any of the codes will do, and the nearest counts
        assert [m.distance for m in kept.find([near(start, 250), near(start, 3)], most=1)] == [0]
        assert kept.find([]) == [] and len(kept) == 6
        assert distance(near(start, 0), near(start, 30)) == 30


def test_blocks_hold_as_many_as_they_should(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 4)
    codes = [code(np.random.default_rng(seed).bytes(32)) for seed in range(23)]
    with Store.open(tmp_path, make=True) as kept:
        for start, stop in ((0, 3), (3, 4), (4, 5), (5, 17), (17, 23)):
            kept.add_all([(said(n, f"{n}.png"), [codes[n]]) for n in range(start, stop)])
        sizes = [len(ids) // 8 for (ids,) in kept._connection.execute("SELECT ids FROM blocks ORDER BY number")]
        assert sizes == [4, 4, 4, 4, 4, 3]
        for number in range(23):
            assert [one.name for one in kept.find([codes[number]])] == [f"{number}.png"]


def test_the_same_bytes_are_one_record(tmp_path):
    with Store.open(tmp_path, make=True) as kept:
        for name, last in (("first.png", 1), ("second.png", 200)):
            kept.add(said(7, name), [near(bytes(32), last)])
        assert len(kept) == 1 and kept.find([near(bytes(32), 1)]) == []
        assert [one.name for one in kept.find([near(bytes(32), 200)])] == ["second.png"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_store_is_its_owners_alone(tmp_path):
    with Store.open(tmp_path / "new", make=True) as kept:
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.path.parent.stat().st_mode) == 0o700


def test_a_store_that_was_moved(tmp_path, kept):
    kept.rename(tmp_path / "elsewhere")
    (tmp_path / "a.jpg").write_bytes(encoded(scene(2), "JPEG"))
    with pytest.raises(InputError, match="there is no store in"):
        verify(tmp_path / "a.jpg", store=kept)
    assert not kept.exists()  # nothing is made by looking
    assert verify(tmp_path / "a.jpg", store=tmp_path / "elsewhere").result == "found again"


def test_a_locked_store_costs_neither_image_nor_sidecar(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    other = sqlite3.connect(kept / module.FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(SidecarError, match=r"was saved, .*not put into the store: .*locked by another program"):
            save(scene(50), tmp_path / "a.png", REPORT, GENERATION, store=kept)
        assert verify(tmp_path / "a.png").matches
        with pytest.raises(SidecarError, match="locked"):
            verify(tmp_path / "a.png", store=kept)
    finally:
        other.close()
    assert verify(tmp_path / "a.png", store=kept).found == []


def test_stores_of_a_newer_version_and_what_is_none(tmp_path, kept):
    connection = sqlite3.connect(kept / module.FILE)
    connection.execute(f"PRAGMA user_version = {module.VERSION + 1}")
    connection.close()
    with pytest.raises(SidecarError, match="of version 2, which this program does not know: update it"):
        Store.open(kept)
    for name, content in (("text", b"hello" * 1000), ("half", (kept / module.FILE).read_bytes()[:5000])):
        (tmp_path / name).mkdir()
        (tmp_path / name / module.FILE).write_bytes(content)
        with pytest.raises(SidecarError) as raised, Store.open(tmp_path / name) as opened:
            opened.find([code(bytes(32))], "0" * 64)
        assert "\n" not in str(raised.value)
    (tmp_path / "foreign").mkdir()
    foreign = sqlite3.connect(tmp_path / "foreign" / module.FILE)
    foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    with pytest.raises(SidecarError, match="no store of provenance"):
        Store.open(tmp_path / "foreign", make=True)


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path, kept):
    with Store.open(kept) as opened:
        pages = opened._connection.execute("PRAGMA page_count").fetchone()[0]
        opened._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(SidecarError, match="the disk is full"):
            opened.add_all([(said(n) | {"more": "x" * 10_000}, [code(bytes(32))]) for n in range(100)])
        assert len(opened) == 10 and len(opened.find([image_code(scene(3))])) == 1


def test_a_record_that_is_no_statement_is_refused(tmp_path, kept):
    connection = sqlite3.connect(kept / module.FILE)
    connection.execute("UPDATE records SET statement = '{}'")
    connection.commit()
    connection.close()
    (tmp_path / "a.png").write_bytes(encoded(scene(4), "PNG"))
    with pytest.raises(SidecarError, match="a record of the store"):
        verify(tmp_path / "a.png", store=kept)


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "iscc_lib", None)
    with pytest.raises(SidecarError, match=r"was saved, .*iscc-lib.*cryptomnesia\[provenance\]"):
        save(scene(1), tmp_path / "a.png", REPORT, GENERATION, store=tmp_path / "store")
    assert (tmp_path / "a.png").exists()
    with pytest.raises(MissingPackage):
        image_code(scene(1))


def test_the_code_is_the_standards(tmp_path):
    """By iscc-lib's own conformance vectors for the codes; here that what is fed to it is grey, 32x32."""
    import iscc_lib

    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    assert image_code(Image.fromarray(ramp)) == iscc_lib.gen_image_code_v0(ramp.tobytes(), 256)["iscc"]
    for bad in ("ISCC:", "ISCC:AAAA", "x", code(bytes(32))[5:], code(bytes(16)), "ISCC:" + "0" * 55):
        with pytest.raises(InputError):
            unit(bad)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P", "CMYK", "1", "LA"])
def test_modes_of_one_picture_have_codes_near_by(mode):
    grey = scene(5).convert("L")
    other = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert distance(image_code(grey), image_code(other)) <= (70 if mode == "1" else 8)


def test_bits_are_counted_with_and_without_numpys_help(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**64, (50, 4), dtype=np.uint64)
    expected = [[bin(int(word)).count("1") for word in row] for row in words]
    assert count(words).tolist() == expected and count(words[:, 0]).tolist() == [row[0] for row in expected]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert count(words).tolist() == expected and count(words[:, 0]).tolist() == [row[0] for row in expected]
    assert bits(code(bytes(32))).tolist() == [0] * 4


def test_pictures_of_one_pixel_and_very_large_ones(monkeypatch):
    for size in ((1, 1), (1, 50)):
        assert image_code(Image.new("RGB", size, (9, 9, 9))).startswith("ISCC:")
    before = image_code(scene(3, 256))
    monkeypatch.setattr("cryptomnesia.image_codes._LARGE", 5000)  # pixels, over which it is made smaller first
    first = bits(before)[:1] ^ bits(image_code(scene(3, 256)))[:1]
    assert count(first).sum() <= 4


def test_what_is_told_of_a_marked_image(tmp_path):
    with pytest.warns(UserWarning):
        save(scene(1), tmp_path / "a.png", REPORT, GENERATION, embed=True, c2pa=False, store=tmp_path / "store")
    marking = document(tmp_path / "a.png")["predicate"]["marking"]
    (tmp_path / "copy.jpg").write_bytes(encoded(scene(1), "JPEG", quality=75))
    (found,) = verify(tmp_path / "copy.jpg", store=tmp_path / "store").found
    assert found["content_id"] == marking["content_id"] and found["coarse"] <= 4
