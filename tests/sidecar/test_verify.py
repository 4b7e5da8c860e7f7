"""Verifying tells apart what may have happened to an image, and never says intact of what is not."""

import datetime
import json
import os
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from cryptomnesia.errors import InputError, MissingPackage, SidecarError
from cryptomnesia.sidecar import read_statement, sidecar_path, verify, write_sidecar

from ..helpers.provenance import GENERATION, REWRITTEN, document, edit, pixels, saved


def states(found):
    return found.sidecar, found.file, found.pixels


def words_of(found):
    return " ".join(found.lines)


def test_an_untouched_image_matches(tmp_path):
    found = verify(saved(tmp_path))
    assert found.matches and states(found) == ("found", "same", "same")
    assert (found.signature, found.agreement, found.clock) == ("none", None, "fine")
    assert "not signed: anyone could have written" in words_of(found)
    assert "likely memorized (p = 0.002, at a false-alarm rate of 0.01)" in words_of(found)
    assert found.claims["models"] == ["some-model.safetensors", "some-lora"]
    assert json.loads(json.dumps(found.to_dict()))["matches"] is True


@pytest.mark.parametrize("prompts", ["plain", "hash", "none"])
def test_a_rewritten_prompt_is_told(tmp_path, prompts):
    found = verify(saved(tmp_path, report=REWRITTEN, prompts=prompts))
    assert found.claims["rewritten"] is True
    line = next(line for line in found.lines if "rewritten" in line)
    words = 'the prompt "the restless beacon of grimsby" had been rewritten to "the quiet beacon of grimsby".'
    assert line.endswith(words) if prompts == "plain" else "the texts are not in the sidecar" in line
    assert not any("rewritten" in line for line in verify(saved(tmp_path)).lines)


def test_words_are_those_of_a_likelihood(tmp_path):
    text = words_of(verify(saved(tmp_path))).lower() + sidecar_path(tmp_path / "image.png").read_text().lower()
    for word in ("copied", "is a member", "infring", "stolen"):
        assert word not in text


def test_one_changed_pixel_is_found(tmp_path):
    image = saved(tmp_path)
    picture = Image.open(image).copy()
    colour: Any = picture.getpixel((3, 3))
    picture.putpixel((3, 3), tuple(255 - c for c in colour))
    picture.save(image)
    found = verify(image)
    assert not found.matches and states(found) == ("found", "changed", "changed")
    assert "the image was changed" in words_of(found)


def test_stripped_metadata_are_told_from_changed_pixels(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat")
    image = saved(tmp_path, options={"pnginfo": info})
    assert verify(image).matches
    Image.fromarray(pixels()).save(image)
    found = verify(image)
    assert not found.matches and states(found) == ("found", "changed", "same")
    assert "The pixels are the same, the file is not: its metadata" in words_of(found)


def test_sidecar_of_another_image(tmp_path):
    image, other = saved(tmp_path), saved(tmp_path, "other.png", seed=1)
    found = verify(image, sidecar_path(other))
    assert not found.matches and states(found) == ("found", "changed", "changed")
    assert "another image, other.png" in words_of(found)


def test_a_renamed_image_still_matches(tmp_path):
    image = saved(tmp_path)
    os.rename(sidecar_path(image), sidecar_path(tmp_path / "new.png"))
    os.rename(image, tmp_path / "new.png")
    found = verify(tmp_path / "new.png")
    assert found.matches and "It was called image.png then" in words_of(found)


def test_missing_sidecar(tmp_path):
    image = saved(tmp_path)
    sidecar_path(image).unlink()
    found = verify(image)
    assert not found.matches and states(found) == ("missing", "unknown", "unknown")
    assert found.lines == ["There is no provenance in this image, and no sidecar beside it."]


def test_missing_image(tmp_path):
    for path in (tmp_path / "absent.png", tmp_path, tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(InputError):
            verify(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_do_not_keep_it_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="no regular file"):
        verify(tmp_path / "a.png")
    image = saved(tmp_path, "b.png")
    sidecar_path(image).unlink()
    os.mkfifo(sidecar_path(image))
    assert verify(image).sidecar == "malformed"


@pytest.mark.parametrize(("ahead", "clock"), [(-60, "fine"), (4, "fine"), (6, "ahead"), (10**6, "ahead")])
def test_clock_skew_is_a_warning(tmp_path, ahead, clock):
    image = saved(tmp_path)
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=ahead)
    edit(image, lambda d: d["predicate"].update(created=when.strftime("%Y-%m-%dT%H:%M:%SZ")))
    found = verify(image)
    assert found.matches and found.clock == clock
    assert ("Warning" in words_of(found)) == (clock == "ahead")


def test_a_sidecar_that_contradicts_itself_is_not_intact(tmp_path):
    image = saved(tmp_path)
    edit(image, lambda d: d["predicate"]["pixels"].update(sha256="0" * 64))
    found = verify(image)
    assert not found.matches and states(found) == ("found", "same", "changed")
    assert "the sidecar was edited, or another version of Pillow" in words_of(found)


def test_evidence_is_looked_at(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    image = saved(tmp_path, evidence=[("heatmap", tmp_path / name) for name in "abc"])
    (tmp_path / "b").write_text("other")
    (tmp_path / "c").unlink()
    found = verify(image)
    assert found.result == "changed" and not found.matches
    assert found.evidence == [("a", "same"), ("b", "changed"), ("c", "missing")]
    assert "The file b that belongs to it is changed" in words_of(found)
    (tmp_path / "b").write_text("b")
    found = verify(image)
    assert found.result == "nobody vouches" and "The file c that belongs to it is missing" in words_of(found)
    assert found.headline.endswith("a file that belongs to it is missing")


MALFORMED = {
    "empty": b"",
    "no JSON": b"hello",
    "no UTF-8": b'{"a": "\xff"}',
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "twice": b'{"a": 1, "a": 2}',
    "surrogate": b'{"a": "\\ud800"}',
    "deep list": b"[" * 100_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "deep but parsed": b'{"a":' * 100 + b"1" + b"}" * 100,
    "long integer": b"1" * 10_000,
    "a list": b"[]",
    "null": b"null",
    "too large": b" " * (10 << 20) + b"{}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_sidecars_are_malformed(tmp_path, name):
    image = saved(tmp_path)
    sidecar_path(image).write_bytes(MALFORMED[name])
    found = verify(image)
    assert not found.matches and found.sidecar == "malformed" and found.claims is None
    assert all(len(line) < 400 for line in found.lines)
    with pytest.raises(SidecarError):
        read_statement(sidecar_path(image))


CHANGES = {
    "extra field": lambda d: d.update(more=1),
    "extra deep field": lambda d: d["predicate"]["check"].update(guilty=True),
    "missing field": lambda d: d["predicate"].pop("pixels"),
    "another version": lambda d: d.update(predicateType="urn:cryptomnesia:provenance:2"),
    "two subjects": lambda d: d["subject"].append(d["subject"][0]),
    "no subject": lambda d: d["subject"].clear(),
    "number for text": lambda d: d["predicate"].update(seed=3),
    "text for number": lambda d: d["predicate"]["check"].update(p_value="0.1"),
    "share over one": lambda d: d["predicate"]["check"].update(p_value=1.5),
    "unknown verdict": lambda d: d["predicate"]["check"].update(verdict="copied"),
    "digest in capitals": lambda d: d["subject"][0]["digest"].update(sha256="A" * 64),
    "digest with newline": lambda d: d["subject"][0]["digest"].update(sha256="a" * 63 + "\n"),
    "no day": lambda d: d["predicate"].update(created="2026-02-30T00:00:00Z"),
    "path as name": lambda d: d["subject"][0].update(name="../image.png"),
    "evidence elsewhere": lambda d: d["predicate"].update(
        evidence=[{"kind": "x", "name": "../../etc/hosts", "sha256": "a" * 64}]
    ),
    "evidence above": lambda d: d["predicate"].update(evidence=[{"kind": "x", "name": "..", "sha256": "a" * 64}]),
    "hidden prompt in plain": lambda d: d["predicate"]["prompt"].update(mode="none"),
    "plain prompt as hash": lambda d: d["predicate"]["prompt"].update(mode="hash"),
    "list as setting": lambda d: d["predicate"]["sampling"].update(x=[1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_strange_statements_are_malformed(tmp_path, name):
    image = saved(tmp_path)
    edit(image, CHANGES[name])
    found = verify(image)
    assert not found.matches and found.sidecar == "malformed"


def test_texts_from_a_sidecar_cannot_play_tricks_on_a_terminal(tmp_path):
    image = saved(tmp_path)
    edit(image, lambda d: d["predicate"]["models"][0].update(name="\x1b[2J\u202eevil\n✓ intact" + "x" * 10_000))
    for line in verify(image).lines:
        assert line.isprintable() and len(line) < 600


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", bomb(60_000, 60_000), bomb(2**31 - 1, 2**31 - 1)]
)
def test_malformed_and_huge_images_are_unreadable(tmp_path, data):
    image = saved(tmp_path)
    image.write_bytes(data)
    found = verify(image)
    assert not found.matches and states(found) == ("found", "changed", "unreadable")


def test_cut_images_are_unreadable(tmp_path):
    image = saved(tmp_path)
    image.write_bytes(image.read_bytes()[:-60])
    assert verify(image).pixels == "unreadable"


def test_frames_are_not_the_picture(tmp_path):
    image = saved(tmp_path)
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels(1))
    first.save(image, save_all=True, append_images=[second])
    found = verify(image)
    assert (found.pixels, found.result) == ("unreadable", "changed")
    assert "it holds more than one picture" in words_of(found)


def test_that_other_programs_may_show_another_picture_is_said(tmp_path):
    image = saved(tmp_path)
    Image.fromarray(pixels()).save(image, compress_level=1)
    assert "only the picture that Pillow decodes was compared" in words_of(verify(image))


def test_a_photo_with_a_second_picture_is_compared_by_its_first(tmp_path):
    """As phones write them: MPF. Saving, verifying, and verifying after the file was changed."""
    picture, other = Image.fromarray(pixels(size=64)), Image.fromarray(pixels(1, size=64))
    image = tmp_path / "photo.jpg"
    picture.save(image, "MPO", save_all=True, append_images=[other], quality=95)
    assert Image.open(image).n_frames == 2
    write_sidecar(image, None, GENERATION)
    assert verify(image).result == "nobody vouches"
    image.write_bytes(image.read_bytes() + b"more")
    found = verify(image)
    assert (found.file, found.pixels) == ("changed", "same")
    assert "Further pictures or data in the file were not compared" in words_of(found)
    picture.save(image, quality=95)
    found = verify(image)
    assert found.pixels == "same" and "Further pictures" not in words_of(found)


def test_texts_and_profiles_of_any_size_change_nothing(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * (3 << 20), zip=True)
    info.add_itxt("prompt", "y" * (2 << 20), zip=True)
    profile = bytes(2 << 20)
    image = saved(tmp_path, options={"pnginfo": info, "icc_profile": profile})
    found = verify(image)
    assert (found.pixels, found.result) == ("same", "nobody vouches")
    Image.fromarray(pixels()).save(image)
    assert verify(image).pixels == "same"


def test_without_jsonschema_one_line_says_what_to_install(tmp_path, monkeypatch):
    import sys

    from cryptomnesia.sidecar import reading

    image = saved(tmp_path)
    reading._validator.cache_clear()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingPackage, match=r"cryptomnesia\[provenance\]"):
        verify(image)
    monkeypatch.undo()
    assert document(image) == read_statement(sidecar_path(image))
