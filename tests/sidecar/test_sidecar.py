"""What is written beside an image, and what is not."""

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from cryptomnesia.errors import InputError, SidecarError
from cryptomnesia.report import RegionReport
from cryptomnesia.sidecar import (
    Generation,
    file_sha256,
    pixels_of,
    read_statement,
    save,
    sidecar_path,
    text_sha256,
    verify,
    write_sidecar,
)

from ..helpers.provenance import GENERATION, PROMPT, REPORT, REWRITTEN, document, edit, pixels, saved


def test_statement_names_the_image_and_what_the_check_said(tmp_path):
    image = saved(tmp_path)
    found = document(image)
    assert sidecar_path(image).name == "image.png.cryptomnesia.json"
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "urn:cryptomnesia:provenance:1"
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert found["subject"] == [{"name": "image.png", "digest": {"sha256": digest}}]
    said = found["predicate"]
    assert said["pixels"] | {"sha256": ""} == {"sha256": "", "mode": "RGB", "width": 8, "height": 8}
    assert said["check"]["verdict"] == "memorized"
    assert (said["check"]["p_value"], said["check"]["alpha"], said["check"]["draws"]) == (0.002, 0.01, 4)
    assert {s["name"]: s["value"] for s in said["check"]["signals"]} == {"score": 7.5, "iso": 41.25, "aniso": None}
    assert said["generator"]["host"] == "ComfyUI 0.30.0"
    assert said["prompt"] == {"mode": "plain", "original": PROMPT, "rewritten": None, "negative": "blurred harbour"}
    assert "at most 0.01 of benign prompts" in " ".join(said["limitations"])
    assert os.stat(sidecar_path(image)).st_mode == os.stat(image).st_mode


@pytest.mark.parametrize("report", [None, REPORT, REWRITTEN, REWRITTEN.to_dict()])
@pytest.mark.parametrize("prompts", ["plain", "hash", "none"])
def test_schema_accepts_what_is_written(tmp_path, report, prompts):
    image = saved(tmp_path, report=report, prompts=prompts)
    assert read_statement(sidecar_path(image)) == document(image)
    assert verify(image).matches


@pytest.mark.parametrize("verdict", ["clear", "uncalibrated", "not applicable"])
def test_every_verdict_comes_with_what_it_means(tmp_path, verdict):
    report = replace(REPORT, verdict=verdict, p_value=None, alpha=None, reason="some reason")
    said = document(saved(tmp_path, report=report))["predicate"]
    assert len(said["limitations"]) == 4
    assert said["check"]["reason"] == "some reason"
    assert verify(tmp_path / "image.png").matches


def test_the_schema_is_one():
    import jsonschema

    from cryptomnesia.sidecar import reading

    jsonschema.Draft202012Validator.check_schema(reading._validator().schema)


def test_importing_needs_none_of_the_optional_packages():
    code = """
import sys
for name in ("PIL", "jsonschema", "cryptography", "c2pa", "diffusers", "torch"):
    sys.modules[name] = None
import cryptomnesia.sidecar, cryptomnesia.sidecar.pipelines
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_integers_and_seeds_are_strings_and_no_number_is_infinite(tmp_path):
    sampling = {"noise_seed": 7, "huge": 2**70, "eta": math.nan, "sigma": math.inf, "steps": np.int64(20), "list": [1]}
    image = saved(tmp_path, generation=replace(GENERATION, sampling=sampling), report=replace(REPORT, score=math.inf))
    said = document(image)["predicate"]
    assert said["seed"] == said["check"]["noise_seed"] == str(2**64 - 1)
    expected = {"noise_seed": "7", "huge": str(2**70), "eta": None, "sigma": None, "steps": 20, "list": "[1]"}
    assert said["sampling"] == expected
    assert said["check"]["signals"][0]["value"] is None
    assert verify(image).matches


def test_rewriting_is_told(tmp_path):
    said = document(saved(tmp_path, report=REWRITTEN))["predicate"]
    assert (said["prompt"]["original"], said["prompt"]["rewritten"]) == (PROMPT, "the quiet beacon of grimsby")
    change = {"kind": "swap", "significance": 3.5, "word": "restless", "became": "quiet"}
    assert said["check"]["mitigation"]["changes"] == [change]


@pytest.mark.parametrize("mode", ["hash", "none"])
def test_hidden_prompts_leak_nowhere(tmp_path, mode):
    quoting = {"text": f"({PROMPT}:1.2)", "other": "Blurred Harbour, x", "steps": 20}
    assert REWRITTEN.mitigation is not None
    mitigation = replace(REWRITTEN.mitigation, reason=f"no rewriting of '{PROMPT}' held")
    report = replace(REWRITTEN, reason=f"cannot read {PROMPT}", mitigation=mitigation)
    image = saved(tmp_path, report=report, prompts=mode, generation=replace(GENERATION, sampling=quoting))
    text = sidecar_path(image).read_text().casefold()
    for word in ("restless", "quiet", "beacon", "grimsby", "blurred", "harbour"):
        assert word not in text
    said = document(image)["predicate"]
    assert said["sampling"] == {"text": "[withheld]", "other": "[withheld]", "steps": 20}
    assert said["prompt"]["original"] == (text_sha256(PROMPT) if mode == "hash" else None)
    assert (text_sha256(PROMPT) in text) == (mode == "hash")
    assert verify(image).matches


def test_threshold_comes_from_the_calibration_of_the_report(tmp_path):
    calibration = SimpleNamespace(identity=REPORT.calibration_id, threshold=6.25, n=486)
    said = document(saved(tmp_path, calibration=calibration))["predicate"]
    assert (said["check"]["threshold"], said["check"]["benign_prompts"]) == (6.25, 486)
    with pytest.raises(SidecarError, match="another calibration"):
        write_sidecar(tmp_path / "image.png", REPORT, GENERATION, calibration=replace_identity(calibration))


def replace_identity(calibration):
    return SimpleNamespace(**{**vars(calibration), "identity": "other"})


def test_evidence_lies_beside_the_image(tmp_path):
    (tmp_path / "heat.png").write_bytes(b"map")
    image = saved(tmp_path, evidence=[("heatmap", tmp_path / "heat.png")])
    entry = {"kind": "heatmap", "name": "heat.png", "sha256": file_sha256(tmp_path / "heat.png")}
    assert document(image)["predicate"]["evidence"] == [entry]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"")
    for path, why in ((tmp_path / "sub" / "a", "another folder"), (tmp_path / "absent", "cannot be read")):
        with pytest.raises((InputError, SidecarError), match=why):
            write_sidecar(image, None, GENERATION, evidence=[("other", path)])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.b.PNG"])
def test_images_of_every_kind_are_saved(tmp_path, name):
    image = saved(tmp_path, name)
    assert verify(image).matches
    if not name.endswith("jpg"):
        assert np.array_equal(np.asarray(Image.open(image)), pixels())
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.cryptomnesia.json"]


@pytest.mark.parametrize(
    "given",
    [
        pixels(),
        pixels().astype(np.float32) / 255,
        torch.from_numpy(pixels()),
        torch.from_numpy(pixels()).double() / 255,
        Image.fromarray(pixels()),
    ],
)
def test_arrays_tensors_and_pictures_give_the_same_pixels(tmp_path, given):
    save(given, tmp_path / "a.png", None, GENERATION)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((2, 8, 8, 3)), "one image, channels last"),
        (np.zeros((3, 8, 8)), "channels last"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        ("text", "not \\(\\)"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, given, why):
    with pytest.raises(InputError, match=why):
        save(given, tmp_path / "a.png", None, GENERATION)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("a.gif", {}, "rename it"),
        ("a.png", {"prompts": "secret"}, "not 'secret'"),
        ("a.png", {"options": {"pnginfo": 3}}, "cannot be encoded"),
    ],
)
def test_bad_arguments_change_nothing(tmp_path, name, changes, why):
    with pytest.raises(InputError, match=why):
        save(pixels(), tmp_path / name, None, GENERATION, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model", [{"role": "boss", "name": "a"}, {"role": "model"}, {"role": "vae", "name": "a", "sha256": "A" * 64}]
)
def test_models_are_named_properly(tmp_path, model):
    saved(tmp_path)
    with pytest.raises(InputError):
        write_sidecar(tmp_path / "image.png", None, Generation("host", models=[model]))


def test_metadata_goes_into_the_image_when_asked(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "{}")
    saved(tmp_path, "with.png", options={"pnginfo": info})
    saved(tmp_path, "without.png")
    assert Image.open(tmp_path / "with.png").info == {"workflow": "{}"}
    assert Image.open(tmp_path / "without.png").info == {}


def test_pixel_digest_is_about_pixels_only():
    def encoded(picture, **options):
        import io

        buffer = io.BytesIO()
        picture.save(buffer, options.pop("format", "PNG"), **options)
        return pixels_of(buffer.getvalue())

    picture = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    same = [
        encoded(picture),
        encoded(picture, compress_level=0),
        encoded(picture, exif=exif),
        encoded(picture, format="WEBP", lossless=True),
    ]
    assert len(set(same)) == 1
    transposed = encoded(picture.transpose(Image.Transpose.TRANSPOSE))
    grey = encoded(picture.convert("L"))
    assert len({same[0], transposed, grey}) == 3
    with pytest.raises(InputError, match="more than one picture"):
        encoded(picture, save_all=True, append_images=[picture.rotate(90)])
    palette = picture.quantize(8)
    assert encoded(palette).sha256 == encoded(palette.convert("RGB")).sha256


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_full_disk_leaves_the_old_image(tmp_path, monkeypatch, call):
    image = saved(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(os, call, full)
    with pytest.raises(SidecarError, match="No space left on device: free some space"):
        save(pixels(1), image, REPORT, GENERATION)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_full_disk_after_the_image_keeps_the_image(tmp_path, monkeypatch):
    image, fsync, calls = saved(tmp_path), os.fsync, []

    def second(handle):
        calls.append(handle)
        return full() if len(calls) > 1 else fsync(handle)

    monkeypatch.setattr(os, "fsync", second)
    with pytest.raises(SidecarError, match=r"the image .* was saved, .*No space left"):
        save(pixels(1), image, REPORT, GENERATION)
    # the sidecar of the image that was replaced is gone too: it would tell of another one
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]
    assert np.array_equal(np.asarray(Image.open(image)), pixels(1))


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:100]))
    assert verify(saved(tmp_path)).matches


def test_interrupting_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders_cost_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(SidecarError, match=r"cannot be written: .*: choose a folder"):
            saved(folder)

    with pytest.raises(SidecarError, match="name of the image"):
        saved(tmp_path, "a\0.png")

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(SidecarError, match="Permission denied: choose a folder"):
        saved(tmp_path)


def test_a_prompt_longer_than_any_reader_takes_is_refused(tmp_path):
    image = saved(tmp_path)
    before = sidecar_path(image).read_bytes()
    with pytest.raises(SidecarError, match="MiB"):
        write_sidecar(image, None, replace(GENERATION, prompt="x" * (11 << 20)))
    assert sidecar_path(image).read_bytes() == before


def test_odd_texts_are_kept_readable(tmp_path):
    generation = replace(GENERATION, prompt="a \ud800 \x00 \u202e cat 猫")
    image = saved(tmp_path, "猫 [1].png", generation=generation)
    assert document(image)["predicate"]["prompt"]["original"] == "a ? \x00 \u202e cat 猫"
    assert verify(image).matches


def test_what_json_cannot_hold_is_refused(tmp_path):
    report = REPORT.to_dict() | {"draws": object()}
    with pytest.raises(SidecarError, match=r"was saved, .*not object"):
        saved(tmp_path, report=report)
    assert json.dumps([p.name for p in tmp_path.iterdir()]) == '["image.png"]'


@pytest.mark.parametrize(
    ("report", "generation", "where"),
    [
        (REPORT.to_dict() | {"verdict": "copied"}, GENERATION, r"check"),
        (REPORT.to_dict() | {"p_value": 2}, GENERATION, r"check"),
        (REPORT, Generation(host=None), r"generator\.host \(type\)"),  # type: ignore[arg-type]
        (REPORT, Generation("a", [{"role": "lora", "name": "a", "strength": "much"}]), r"strength \(type\)"),
    ],
)
def test_nothing_is_written_that_no_reader_takes(tmp_path, report, generation, where):
    image = saved(tmp_path)
    before = sidecar_path(image).read_bytes()
    with pytest.raises(InputError, match=where):
        write_sidecar(image, report, generation)
    assert sidecar_path(image).read_bytes() == before


def test_writing_needs_no_jsonschema(tmp_path, monkeypatch):
    from cryptomnesia.sidecar import reading

    reading._validator.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jsonschema", None)
        image = saved(tmp_path)
    assert verify(image).matches


def test_an_image_that_is_none_gets_no_sidecar(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image that can be read"):
        write_sidecar(tmp_path / "a.png", None, GENERATION)
    with pytest.raises(SidecarError, match="there is no image"):
        write_sidecar(tmp_path / "b.png", None, GENERATION)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_regions_are_told_where_they_were_looked_at(tmp_path):
    region = RegionReport(share=0.25, peak=9.5, sigma=0.2, probes=4, smoothing=1.0, forward_rows=8)
    image = saved(tmp_path, report=replace(REPORT, region=region))
    said = document(image)["predicate"]
    assert said["check"]["region"] == asdict(region) and len(said["limitations"]) == 5
    assert verify(image).matches
    edit(image, lambda found: found["predicate"]["check"]["region"].update(share=1.5))
    with pytest.raises(SidecarError, match=r"predicate\.check"):
        read_statement(sidecar_path(image))
    plain = saved(tmp_path, "plain.png")
    assert "region" not in document(plain)["predicate"]["check"] and verify(plain).matches
