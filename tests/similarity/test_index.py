"""An index is kept, grows, and reads nothing twice; what cannot be read is named, and what is damaged is refused."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.errors import InputError, MissingPackage
from cryptomnesia.similarity import NONE, SAME, SIMILAR, ReferenceIndex, compare, local
from cryptomnesia.similarity import index as indexing
from cryptomnesia.similarity.index import measured
from cryptomnesia.similarity.pictures import read
from cryptomnesia.similarity.search import search

from ..helpers.drawn import drawn
from ..helpers.lineages import encoder_file


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    for number in range(6):
        drawn(number).save(place / f"{number}.png")
    return place


def same_rows(one, other):
    for number in range(len(one)):
        a, b = one.row(number), other.row(number)
        for x, y in ((a.copy, b.copy), (a.codes, b.codes), (a.features.bits, b.features.bits)):
            np.testing.assert_array_equal(x, y)


def test_only_what_is_new_or_changed_is_read_again(folder, tmp_path):
    store = tmp_path / "store"
    first = ReferenceIndex.build(folder, store=store)
    assert first.read_again == 6 and len(first) == 6
    again = ReferenceIndex.build(folder, store=store)
    assert again.read_again == 0 and again.entries == first.entries and again.identity == first.identity
    same_rows(again, ReferenceIndex.build(folder))
    drawn(7).save(folder / "3.png")
    drawn(8).save(folder / "new.png")
    (folder / "0.png").unlink()
    third = ReferenceIndex.build(folder, store=store)
    assert third.read_again == 2 and [os.path.basename(e.path)[0] for e in third.entries] == list("12345n")
    assert third.identity != first.identity
    same_rows(third, ReferenceIndex.build(folder))
    (image,) = compare(drawn(8), third).images
    assert image.nearest[0].reference.endswith("new.png") and image.nearest[0].identical
    assert compare(drawn(0), third).images[0].kind == NONE


def test_a_stopped_build_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "ROWS", 2)
    store = tmp_path / "store"

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ReferenceIndex.build(folder, store=store, progress=stop)
    index = ReferenceIndex.build(folder, store=store)
    assert index.read_again == 2
    same_rows(index, ReferenceIndex.build(folder))
    known = {f"{name}.{array}.npy" for name in shards(store) for array in ("copies", "bits", "starts")}
    assert known <= {file.name for file in store.iterdir()} and len(shards(store)) == 3


def test_two_builds_do_not_share_a_folder_at_once(folder, tmp_path):
    def meanwhile(done, total):
        if done == 1:
            with pytest.raises(InputError, match=r"another comparison is writing to .*another folder for the index"):
                ReferenceIndex.build(folder, store=tmp_path)

    index = ReferenceIndex.build(folder, store=tmp_path, progress=meanwhile)
    assert ReferenceIndex.build(folder, store=tmp_path).read_again == 0
    same_rows(index, ReferenceIndex.build(folder))


def shards(store):
    return [shard["name"] for shard in json.loads((store / "index.json").read_text())["shards"]]


def test_rows_are_mapped_and_answers_do_not_hang_on_shards(folder, tmp_path, monkeypatch):
    whole = ReferenceIndex.build(folder)
    monkeypatch.setattr(indexing, "ROWS", 2)
    parts = ReferenceIndex.build(folder, store=tmp_path / "store")
    assert len(parts._shards) == 3 and all(isinstance(shard.copies, np.memmap) for shard in parts._shards)
    rows = [measured(read(drawn(2).rotate(5)), None, True), measured(read(drawn(900)), None, True)]
    for one, other in zip(search(whole, rows), search(parts, rows), strict=True):
        scores = [{c.reference: (c.scores, c.bits) for c in candidates} for candidates in (one, other)]
        assert scores[0].keys() == scores[1].keys()
        for number, (tests, bits) in scores[0].items():
            assert scores[1][number][0] == pytest.approx(tests, abs=1e-3) and scores[1][number][1] == bits


@pytest.mark.parametrize("damage", ["cut", "rows", "json", "pickle"])
def test_a_damaged_index_is_refused_in_one_line(folder, tmp_path, damage):
    store = tmp_path / "store"
    ReferenceIndex.build(folder, store=store)
    copies = next(store.glob("*.copies.npy"))
    if damage == "cut":
        copies.write_bytes(copies.read_bytes()[:-10])
    elif damage == "rows":
        np.save(copies, np.zeros((2, 16, 16, 3), np.uint8))
    elif damage == "pickle":
        np.save(copies, np.array([{}], object), allow_pickle=True)
    else:
        (store / "index.json").write_text('{"schema": "cryptomnesia/reference-index/1"')
    with pytest.raises(InputError, match="remove its folder to build it again") as error:
        ReferenceIndex.build(folder, store=store)
    assert "\n" not in str(error.value)


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "index.json").write_text('{"schema": "something/else/1"}')
    with pytest.raises(InputError, match="give another folder"):
        ReferenceIndex.build(folder, store=tmp_path)
    assert "something" in (tmp_path / "index.json").read_text()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index.json"]


def png_of(width, height):
    """A PNG that claims that size, and holds next to nothing."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_what_cannot_be_read_is_named_and_the_rest_compared(folder):
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_of(60_000, 60_000))
    (folder / "text.png").write_text("no image")
    drawn(0).save(folder / "moves.webp", save_all=True, append_images=[drawn(1)])
    (folder / "notes.txt").write_text("not called like an image")
    os.symlink(folder / "gone.png", folder / "link.png")
    answer = compare(folder, folder)
    bad = {"broken.png", "empty.jpg", "huge.png", "text.png", "moves.webp", "link.png"}
    for rejected in (answer.rejected, answer.reference_rejected):
        assert {os.path.basename(name) for name in rejected} == bad
        assert all("\n" not in reason for reason in rejected.values())
    assert len(answer.images) == answer.references == 6
    reasons = {os.path.basename(name): reason for name, reason in answer.rejected.items()}
    assert "scale it down" in reasons["huge.png"] and "animated" in reasons["moves.webp"]
    with pytest.raises(InputError, match="none of the references can be read"):
        ReferenceIndex.build(folder / "broken.png")


def test_links_in_a_circle_end(folder):
    inner = folder / "inner"
    inner.mkdir()
    drawn(20).save(inner / "deep.png")
    os.symlink(folder, inner / "up")
    os.symlink(inner, folder / "again")
    index = ReferenceIndex.build(folder)
    assert len(index) == 7 and sum("deep" in entry.path for entry in index.entries) == 1


def test_pictures_are_read_as_people_see_them(tmp_path):
    """Sixteen bits, a palette, grey with alpha, turned by EXIF, on nothing: all of them are the picture."""
    picture = drawn(3)
    grey = np.asarray(picture.convert("L")).astype(np.uint16) << 8
    Image.fromarray(grey).save(tmp_path / "deep.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned back
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.new("L", picture.size, 255))
    alpha.save(tmp_path / "alpha.png")
    picture.convert("CMYK").save(tmp_path / "print.tif")
    answer = compare(tmp_path, [drawn(number) for number in range(5)])
    assert not answer.rejected
    found = {os.path.basename(i.name): (i.kind, i.nearest[0].reference) for i in answer.images}
    assert found == dict.fromkeys(["deep.png", "palette.png", "phone.jpg", "alpha.png", "print.tif"], (SAME, "image 4"))


def test_tiny_and_plain_pictures_say_nothing_but_by_being_equal():
    tiny, plain = Image.new("RGB", (1, 1), (9, 8, 7)), Image.new("RGB", (300, 200), (90, 90, 90))
    answer = compare([tiny, plain], [drawn(0), drawn(1)])
    assert all(image.kind == NONE and "plain" in image.reason for image in answer.images)
    assert answer.verdict == "no verdict"
    equal = compare([tiny, plain], [plain.copy(), tiny.copy(), drawn(0)])
    assert [image.nearest[0].reference for image in equal.images] == ["image 2", "image 1"]
    assert all(image.kind == SAME and image.nearest[0].region.all() for image in equal.images)
    assert equal.images[1].nearest[0].region.shape == (200, 300)
    assert np.asarray(equal.plot()).std() > 5


def test_an_encoder_finds_what_pixels_do_not(tmp_path):
    """One that sees mean colours alone: another picture in a reference's colours is similar, and no copy."""
    path = encoder_file(tmp_path / "means.onnx", ("n", 3, 32, 32), metadata={"mean": "0 0 0", "std": "1 1 1"})
    colours = np.random.default_rng(1).uniform(40, 215, (105, 3))
    references = [toned(number, colour) for number, colour in enumerate(colours)]
    index = ReferenceIndex.build(references, encoder=path, store=tmp_path / "store")
    answer = compare([toned(700, colours[60])], index, alpha=0.05)
    (image,) = answer.images
    assert (image.kind, image.nearest[0].reference) == (SIMILAR, "image 61")
    assert image.nearest[0].cosine > 0.99 and answer.encoder.endswith("means.onnx") and answer.verdict == "none"
    plain = ReferenceIndex.build(references[:5], store=tmp_path / "store")  # other rows: without vectors
    assert plain.read_again == 5 and plain.row(0).embedding.shape == (0,)
    small = compare(references[0].copy(), references[:2], encoder="built-in")
    assert small.encoder == "the built-in encoder" and small.images[0].nearest[0].cosine == pytest.approx(1, abs=1e-4)


def toned(seed, colour):
    """A picture whose channels have those means."""
    pixels = np.asarray(drawn(seed, (64, 64)), np.float64)
    scaled = (pixels - pixels.mean((0, 1))) * 0.1 + colour
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def test_a_missing_package_names_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    assert not local.available()
    with pytest.raises(MissingPackage, match=r"opencv-python-headless.*cryptomnesia\[compare\]"):
        local.features(drawn(0))


def test_mirrored_features_are_those_of_the_mirrored_picture():
    picture = drawn(5)
    flipped = local.features(picture).flipped(1.0)
    seen = local.features(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    moved = local.movement(flipped, seen)
    assert moved.matches > 0.6 * min(len(flipped), len(seen))
    assert abs(moved.turn - 1) < 0.01 and abs(moved.shift) < 0.01
