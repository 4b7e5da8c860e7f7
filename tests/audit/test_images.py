"""Audits of images: what applies to each, broken ones as rejects, and the same numbers in any batch."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cryptomnesia.attribution import Signatures, attribute, calibrate_attribution, save_calibration
from cryptomnesia.audit.images import ImageJob, membership_of
from cryptomnesia.audit.inputs import Images
from cryptomnesia.audit.rows import PART, Done, Row
from cryptomnesia.audit.run import Audit, open_engine
from cryptomnesia.audit.worker import Worker
from cryptomnesia.cli import run
from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import save
from cryptomnesia.signals import spectral

from ..helpers.auditing import equal, results
from ..helpers.makers import SIZE, Maker, candidate
from ..helpers.provenance import GENERATION, REPORT

MAKERS = {"ada": Maker(1, fold=2), "bo": Maker(2, fold=2)}


def keep(tensor, path):
    """A tensor (3, H, W) in [0, 1] as a picture."""
    Image.fromarray((tensor.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images by each maker, and some that are not what they seem."""
    place = tmp_path_factory.mktemp("images")
    for name, maker in MAKERS.items():
        for i, image in enumerate(maker.images(3, seed=5)):
            keep(image, place / f"{name}{i}.png")
    Image.new("RGBA", (SIZE, SIZE)).save(place / "clear.png")
    Image.new("RGB", (8, 8)).save(place / "tiny.webp")
    (place / "broken.png").write_bytes((place / "ada0.png").read_bytes()[:100])
    (place / "empty.jpg").touch()
    (place / "text.png").write_text("no image")
    return place


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A calibration for both makers."""
    path = tmp_path_factory.mktemp("known") / "both.attribution.safetensors"
    pool = [candidate(name, maker) for name, maker in MAKERS.items()]
    learned = calibrate_attribution({name: maker.images(20) for name, maker in MAKERS.items()}, pool)
    save_calibration(learned, path)
    return path, pool, learned


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Signatures of both makers."""
    place = tmp_path_factory.mktemp("library")
    for name, maker in MAKERS.items():
        latents = maker.encode_image(torch.stack(maker.images(4)))
        Signatures.measure(maker, latents, name, plan="1step").save(place / f"{name}.signature.safetensors")
    return place


def job(folder, **options):
    return ImageJob(folder, open_model=MAKERS.__getitem__, size=(SIZE, SIZE), **options)


def worked(job, size=100):
    """Every image of a job's folder, so many at a time."""
    worker, found = Worker(job), Done()
    rows = list(Images(job.folder))
    for start in range(0, len(rows), size):
        found = found + worker(rows[start : start + size])
    return sorted(found.records, key=lambda record: record["row"]), sorted(found.rejects)


def test_broken_images_are_rejects_and_others_keep_their_row(folder):
    records, rejects = worked(job(folder))
    assert [reject.excerpt for reject in rejects] == ["broken.png", "empty.jpg", "text.png"]
    assert all(reject.reason and "\n" not in reject.reason for reject in rejects)
    names = [record["path"] for record in records]
    assert "clear.png" in names and "tiny.webp" in names and len(names) == 8
    assert all((record["sidecar"], record["matches"]) == ("missing", False) for record in records)
    assert {record.get("made_by") for record in records} == {None}


def test_sidecars_are_verified(tmp_path):
    for name in ("intact", "changed", "odd"):
        save(Image.new("RGB", (40, 40), "red"), tmp_path / f"{name}.png", REPORT, GENERATION)
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "changed.png")
    (tmp_path / "odd.png.cryptomnesia.json").write_text("{")
    records, rejects = worked(job(tmp_path))
    found = {record["path"]: record for record in records}
    assert not rejects
    assert found["intact.png"]["matches"] and found["intact.png"]["claimed_verdict"] == "memorized"
    assert (found["changed.png"]["file"], found["changed.png"]["pixels"]) == ("changed", "changed")
    assert found["odd.png"]["sidecar"] == "malformed" and not found["odd.png"]["matches"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_provenance_in_the_image_is_as_good_as_beside_it(tmp_path):
    for name in ("kept", "changed"):
        save(Image.new("RGB", (40, 40), "red"), tmp_path / f"{name}.png", REPORT, GENERATION, embed=True, c2pa=False)
        (tmp_path / f"{name}.png.cryptomnesia.json").unlink()
    with Image.open(tmp_path / "changed.png") as opened:
        told = PngInfo()
        told.add_itxt("XML:com.adobe.xmp", opened.info["XML:com.adobe.xmp"])
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "changed.png", pnginfo=told)
    found = {record["path"]: record for record in worked(job(tmp_path))[0]}
    assert {record["sidecar"] for record in found.values()} == {"in the image"}
    assert found["kept.png"]["matches"] and not found["changed.png"]["matches"]


def test_attribution_is_that_of_the_public_function(folder, known):
    path, pool, learned = known
    records, _ = worked(job(folder, candidates={name: name for name in MAKERS}, calibration=path))
    for record in records:
        if record["path"] in ("clear.png", "tiny.webp"):
            assert record.get("made_by") is None and record["note"]
            continue
        (expected,) = attribute([folder / record["path"]], pool, learned)
        assert record["made_by"] == expected.decision and record["note"] == (" ".join(expected.warnings) or None)
        assert record["made_by_p_value"] == pytest.approx(expected.p_value, abs=1e-5)
        assert record["made_by_probability"] == pytest.approx(expected.probabilities[expected.decision], abs=1e-5)
    assert {record["made_by"] for record in records if record["path"].startswith("ada")} == {"ada"}


def test_prompts_lie_beside_images_where_the_calibration_needs_them(tmp_path):
    pool = [candidate(name, maker) for name, maker in MAKERS.items()]
    made = {name: maker.images(20, prompt="a cat") for name, maker in MAKERS.items()}
    learned = calibrate_attribution(made, pool, prompts={name: ["a cat"] * 20 for name in MAKERS})
    save_calibration(learned, tmp_path / "known.attribution.safetensors")
    for i, image in enumerate(MAKERS["ada"].images(2, seed=3, prompt="a cat")):
        keep(image, tmp_path / f"{i}.png")
    (tmp_path / "0.txt").write_text("a cat\n")
    options = {"candidates": {name: name for name in MAKERS}, "calibration": tmp_path / "known.attribution.safetensors"}
    first, second = worked(job(tmp_path, **options))[0]
    assert first["made_by"] == "ada" and second.get("made_by") is None and "1.txt" in second["note"]


def test_the_nearest_signature(folder, library):
    records, _ = worked(job(folder, model="ada", library=library))
    maker, entries = MAKERS["ada"], [Signatures.load(path) for path in sorted(library.iterdir())]
    from cryptomnesia.pixels import read_picture

    latents = maker.encode_image(read_picture(folder / "bo1.png"))
    values = spectral.signature(maker, latents, plan="1step")
    distances = {e.name: float(spectral.cosine_distance(values, e.prototype[None])) for e in entries}
    record = next(record for record in records if record["path"] == "bo1.png")
    assert record["nearest_signature"] == min(distances, key=distances.__getitem__)
    assert record["signature_distance"] == pytest.approx(min(distances.values()), abs=1e-6)


def test_batches_change_nothing(folder, known, library):
    path, _, _ = known
    asked = job(folder, candidates={n: n for n in MAKERS}, calibration=path, model="bo", library=library)
    alone, rejects = worked(asked, 1)
    for size in (3, 100):
        records, same = worked(asked, size)
        assert same == rejects and equal(alone, records, 1e-5)


def test_a_run_resumes_and_says_what_it_rests_on(folder, known, tmp_path):
    path, _, learned = known
    asked = job(folder, candidates={name: name for name in MAKERS}, calibration=path)
    run = Audit(Images(folder), asked, tmp_path)
    with open_engine("local", asked) as engine:
        assert list(run.steps(engine))[-1] == 11
    run.finish()
    assert run.manifest.alpha == learned.alpha and len(run.manifest.model or "") == 64 and run.manifest.draws is None
    assert len(results(tmp_path)) == 8 and len(results(tmp_path, "rejects")) == 3
    assert Audit(Images(folder), asked, tmp_path).complete


def test_membership_is_asked_of_all_images_together(tmp_path):
    maker = MAKERS["ada"]
    for name, some in (("suspects", maker.images(12)), ("references", Maker(9, fold=2).images(12, seed=7))):
        (tmp_path / name).mkdir()
        for i, image in enumerate(some):
            keep(image, tmp_path / name / f"{i}.png")
    out = tmp_path / "out"
    out.mkdir()
    asked = job(tmp_path / "suspects", model="ada")
    images = Images(tmp_path / "suspects")
    found = membership_of(asked, images, tmp_path / "references", out)
    assert found["suspects_measured"] == found["references_measured"] == 12 and found["auc"] > 0.9
    assert found["headline"] and json.loads((out / "membership.json").read_text())["p_value"] == found["p_value"]
    assert membership_of(asked, images, None, out) is None
    with_itself = membership_of(asked, images, tmp_path / "suspects", out)
    assert with_itself["verdict"] is None and "both sets" in with_itself["reason"]


# --- the command ---


def test_ten_thousand_files_of_which_some_are_broken(tmp_path, capsys):
    place = tmp_path / "many"
    place.mkdir()
    Image.new("RGB", (32, 32)).save(place / "0.png")
    good = (place / "0.png").read_bytes()
    for i in range(1, 10_000):
        (place / f"{i}.png").write_bytes(good[:40] if i % 1000 == 7 else good)
    assert run(["audit", "images", "-i", str(place), "-o", str(tmp_path / "out"), "--json", "--gallery", "0"]) == 5
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["rows"], last["rejects"]) == ("finished", 9990, 10)
    rows = [row["row"] for name in ("results", "rejects") for row in results(tmp_path / "out", name)]
    assert sorted(rows) == list(range(10_000))


def test_exit_codes(tmp_path, capsys):
    """5: nothing is known of any image; 0: all fit their sidecars; 4: one does not."""
    place = tmp_path / "images"
    place.mkdir()
    options = ["audit", "images", "-i", str(place), "--quiet", "--gallery", "0"]
    Image.new("RGB", (32, 32)).save(place / "a.png")
    assert run([*options, "-o", str(tmp_path / "unknown")]) == 5
    save(Image.new("RGB", (32, 32), (9, 9, 9)), place / "b.png", report=REPORT, generation=GENERATION)
    assert run([*options, "-o", str(tmp_path / "fit")]) == 0
    keep(torch.rand(3, 32, 32), place / "b.png")
    assert run([*options, "-o", str(tmp_path / "unfit")]) == 4
    assert "1 do not fit their sidecar or signature" in capsys.readouterr().out


def test_images_that_change_meanwhile_are_noticed(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for i in range(2 * PART):
        (place / f"{i:03}.png").write_bytes(b"no image")
    asked = ImageJob(place)
    source = Images(place)
    whole = Audit(source, asked, tmp_path / "out")
    (place / "200.png").write_bytes(b"no other")
    words = f"the input changed while it was read, in rows {PART} to {2 * PART - 1}"
    with open_engine("local", asked) as engine, pytest.raises(InputError, match=words):
        list(whole.steps(engine, 64))
    assert whole.kept == PART
    (place / "200.png").write_bytes(b"no image")
    run_ = Audit(Images(place), asked, tmp_path / "out")
    with open_engine("local", asked) as engine, pytest.raises(InputError, match="the input changed while it was read"):
        for _ in run_.steps(engine, 64):
            (place / "000.png").write_bytes(b"no other")  # after it was read


def test_questions_and_what_they_are_asked_with_come_together(folder, tmp_path, capsys):
    for options, words in [
        (["--candidate", "a=demo"], "--calibration"),
        (["--library", "x"], "--model"),
        (["--model", "demo"], "--references"),
        (["--candidate", "demo"], "NAME=MODEL"),
        (["--input", str(tmp_path)], "no images"),
    ]:
        assert run(["audit", "images", "-i", str(folder), "-o", str(tmp_path / "out"), *options]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1


def test_a_file_that_goes_missing_is_a_reject(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
    worker = Worker(job(tmp_path))
    os.remove(tmp_path / "a.png")
    found = worker([Row(0, "a.png"), Row(1, "b.png")])
    assert [record["path"] for record in found.records] == ["b.png"]
    assert "a.png" in found.rejects[0].reason
