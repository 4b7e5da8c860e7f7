"""Getting pictures out of the built-in model: what is found, kept, resumed and handed on."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cryptomnesia import Guard, load_demo
from cryptomnesia.cli import run
from cryptomnesia.demo import demo_calibration
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.errors import InputError
from cryptomnesia.extraction import Sampling, extract
from cryptomnesia.extraction.captions import Asked, Captions
from cryptomnesia.extraction.evidence import weigh
from cryptomnesia.sidecar import load_signer, new_chain

SAMPLING = Sampling(seeds=1, steps=12)
HELD, OTHERS, BARE = 3, 20, 2  # the last are a picture twice, and a broken one


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """A folder with pictures that the model was shown often, and others that it saw among many."""
    gallery, folder = Gallery.load(), tmp_path_factory.mktemp("pictures") / "mine"
    folder.mkdir()
    numbers = {kind: [i for i, c in enumerate(gallery.captions) if c.kind == kind] for kind in ("verbatim", "general")}
    for name, number in enumerate(numbers["verbatim"][:HELD] + numbers["general"][:OTHERS]):
        Image.fromarray(gallery.images[number]).save(folder / f"{name:02}.png")
        (folder / f"{name:02}.txt").write_text(gallery.captions[number].text)
    (folder / "again.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:99])
    (folder / "nobody.txt").write_text("a caption without a picture")
    return folder


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(load_demo(), demo_calibration())


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys")
    keys.chmod(0o700)
    chain = new_chain(keys / "k", name="Ada")
    return load_signer(chain.certificate, chain.key), chain.root


@pytest.fixture(scope="module")
def out(mine, guard, signer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extracted") / "out"
    extract(guard, mine, folder, sampling=SAMPLING, signer=signer[0], model="built-in")
    return folder


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "extraction.json").read_text())


def test_what_is_held_is_found_and_the_folder_is_vouched_for(out, mine, signer, capsys):
    told = report(out)
    assert told["verdict"] == "reproduced" and told["pictures"] == HELD + OTHERS + BARE
    assert list(told["rejected"]) == ["broken.png"] and told["without_words"] == BARE
    assert str(mine.parent) not in (out / "index.html").read_text() + (out / "extraction.json").read_text()
    assert set(told["reproduced"]) >= {f"{name:02}.png" for name in range(HELD)}
    assert len(told["reproduced"]) <= HELD + 1
    found = [one for one in told["evidence"] if one["stands"]]
    assert all(copy["own"] and copy["kind"] == "same picture" for one in found for copy in one["copies"])
    page = " ".join((out / "index.html").read_text().split())
    shown = [one for one in told["evidence"] if one["copies"]]
    assert told["headline"] in page and "is signed" in page and page.count("<article") == len(shown)
    assert run(["verify", str(out / "extraction.bundle.json"), "--trust", str(signer[1])]) == 0
    assert run(["verify", str(out / "found" / "01.png"), "--trust", str(signer[1])]) == 0
    capsys.readouterr()


def test_the_same_again_makes_nothing_anew_and_mends_what_is_gone(out, mine, guard, signer):
    made = sorted((out / "generated").iterdir())
    before, times = report(out), [file.stat().st_mtime_ns for file in made]
    kept, gone = made[1:], made[0].read_bytes()
    made[0].unlink()
    (out / "found" / "own.txt").write_text("notes of the artist's own")
    extract(guard, mine, out, sampling=SAMPLING, signer=signer[0], model="built-in")
    assert report(out) == before and made[0].read_bytes() == gone
    assert [file.stat().st_mtime_ns for file in kept] == times[1:]
    assert (out / "found" / "own.txt").exists()


@pytest.mark.parametrize(
    "other", [Sampling(1, seed=1, steps=12), Sampling(1, steps=13), Sampling(1, guidance=2.0, steps=12)]
)
def test_a_folder_goes_on_with_the_same_settings_only(out, mine, guard, other):
    before = report(out)
    with pytest.raises(InputError, match="holds an extraction with other settings"):
        extract(guard, mine, out, sampling=other)
    assert report(out) == before


def test_a_stop_loses_nothing(mine, guard, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        if done >= HELD + OTHERS:
            raise Stopped

    with pytest.raises(Stopped):
        extract(guard, mine, tmp_path, sampling=SAMPLING, progress=stop)
    checked = json.loads((tmp_path / "run.json").read_text())["checked"]
    assert len(checked) == HELD + OTHERS and not (tmp_path / "index.html").exists()


def test_without_words_or_a_calibration_nothing_is_claimed(mine, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    Image.open(mine / "00.png").save(tmp_path / "bare" / "a.png")
    bare, out = str(tmp_path / "bare"), str(tmp_path / "out")
    assert run(["extract", "--images", bare, "--out", out, "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "cannot tell" and "none of 1 picture" in told["headline"]
    assert run(["extract", "--images", bare, "--out", out, "--calibration", "none"]) == 2
    assert "calibrat" in capsys.readouterr().err


def test_one_picture_is_shown_without_a_verdict(mine, guard, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    for file in mine.glob("00.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    found = extract(guard, folder, tmp_path / "out", sampling=SAMPLING)
    assert found.verdict in ("cannot tell", "none found") and not found.reproduced


def test_a_dry_run_says_the_cost_and_writes_nothing(mine, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["extract", "--images", str(mine), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "checking 23 prompts" in said and "at most 92 images" in said and not out.exists()


# --- weighing, against numbers by hand ---


def compared(p_values: Sequence[float | None], kinds: list[str], pictures: list[Path]) -> Any:
    """A comparison whose images are nearest to the first picture, the second, and so on."""
    images = [
        SimpleNamespace(
            kind=kind, p_value=p, nearest=[SimpleNamespace(reference=str(picture), similarity=0.9, share=1.0)]
        )
        for p, kind, picture in zip(p_values, kinds, pictures, strict=True)
    ]
    return SimpleNamespace(images=images)


def words(pictures: list[Path]) -> Captions:
    asked = tuple(Asked(f"prompt {i}", (i,), "list") for i in range(len(pictures)))
    return Captions(Path("/x"), tuple(pictures), asked)


def test_copies_stand_at_a_false_discovery_rate_over_all_images():
    pictures = [Path(f"/x/{i}.png") for i in range(5)]
    captions = words(pictures)
    checked = {asked.prompt: {"p_value": 0.01, "verdict": "memorized"} for asked in captions.asked}
    made = {asked.prompt: (0,) for asked in captions.asked}
    p_values, same = [0.02, 0.03, 0.04, 0.9, 0.8], "same picture"
    found = weigh(captions, checked, made, compared(p_values, [same, same, same, "none", "none"], pictures), 0.05)
    # adjusted: .02 x 5 / 1, .03 x 5 / 2, .04 x 5 / 3 -> all .0667 from the top; of five (2 + 1) / (.5 x 5) = 1 are null
    assert [one.copies[0].q_value for one in found[:3]] == pytest.approx([0.2 / 3] * 3) and not found[0].stands
    found = weigh(captions, checked, made, compared(p_values, [same, same, same, "none", "none"], pictures), 0.07)
    assert [one.stands for one in found] == [True] * 3 + [False] * 2
    few = compared([0.02, 0.03, 0.04, 0.3, 0.4], [same, same, "similar", "none", "none"], pictures)
    found = weigh(captions, checked, made, few, 0.05)
    # now (0 + 1) / 2.5 = .4 of them are null
    assert [one.copies[0].q_value for one in found[:2]] == pytest.approx([0.4 * 0.2 / 3] * 2)
    assert [one.stands for one in found] == [True, True, False, False, False]


def test_a_copy_of_words_that_are_not_memorized_is_shown_and_does_not_stand():
    pictures = [Path("/x/0.png"), Path("/x/1.png")]
    captions = words(pictures)
    checked = {asked.prompt: {"p_value": 0.03, "verdict": "clear"} for asked in captions.asked}
    checked["prompt 1"]["verdict"] = "memorized"
    made = {asked.prompt: (7,) for asked in captions.asked}
    found = weigh(captions, checked, made, compared([0.01, 0.01], ["same picture"] * 2, pictures), 0.05)
    assert [(one.asked.prompt, one.stands, one.vague) for one in found] == [
        ("prompt 1", True, False),
        ("prompt 0", False, True),
    ]


def test_copies_without_p_values_are_shown_and_do_not_stand():
    pictures = [Path("/x/0.png"), Path("/x/1.png")]
    captions = words(pictures)
    checked = {asked.prompt: {"p_value": 0.01, "verdict": "memorized"} for asked in captions.asked}
    made = {asked.prompt: (7,) for asked in captions.asked}
    found = weigh(captions, checked, made, compared([None, None], ["same picture", "none"], pictures), 0.05)
    assert found[0].vague and found[0].copies[0].q_value is None and not found[0].stands
    assert np.isfinite(len(found))
