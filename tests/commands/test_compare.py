"""`cryptomnesia compare` as its users meet it."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from ..helpers.commands import caller, one_line
from ..helpers.drawn import drawn


@pytest.fixture
def places(tmp_path):
    """Three references, and images: one flipped, one stranger, one that is broken."""
    mine, made = tmp_path / "mine", tmp_path / "made"
    mine.mkdir()
    made.mkdir()
    for number in range(3):
        drawn(number).save(mine / f"{number}.png")
    ImageOps.mirror(drawn(1)).save(made / "b.jpg", quality=80)
    drawn(5000).save(made / "c.png")
    (made / "d.png").write_bytes(b"no image")
    return made, mine, tmp_path / "out"


def test_copies_are_found_shown_and_kept(places, capsys):
    made, mine, out = places
    compare = caller(capsys, "compare", "--images", made, "--references", mine, "--out", out)
    code, said, told = compare()
    assert code == 3 and said.startswith("1 of 2 images is a copy")
    assert "b.jpg" in said and "The same picture as 1.png, flipped" in said
    assert "3 references searched: too few for a p-value" in said and "d.png is no image" in said
    assert told.splitlines()[-1].startswith(f"kept in {out}")
    document = json.loads((out / "compare.json").read_text())
    found = {image["name"].rpartition("/")[2]: image for image in document["images"]}
    assert found["b.jpg"]["decision"] == "same picture" and found["c.png"]["files"] is None
    picture = Image.open(out / "copies" / found["b.jpg"]["files"]["picture"])
    mask = Image.open(out / "copies" / found["b.jpg"]["files"]["mask"])
    assert picture.width == 760 and mask.size == (160, 160) and np.asarray(mask).mean() > 240
    page = (out / "compare.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "The same picture as 1.png, flipped" in page
    # nothing is read again, and what is no copy any more is not shown any more
    (made / "b.jpg").unlink()
    code, said, _ = compare("--json")
    assert code == 5 and json.loads(said)["verdict"] == "no verdict"
    assert json.loads(said) == json.loads((out / "compare.json").read_text()) and not list((out / "copies").iterdir())


def test_places_may_be_many_and_single(places, capsys):
    made, mine, out = places
    compare = caller(capsys, "compare", "--out", out, "--images", made / "b.jpg", "--references", mine / "0.png")
    assert compare("--json")[0] == 5
    code, said, _ = compare("--json", "--references", mine / "1.png", "--index", out / "known")
    assert code == 3 and json.loads(said)["references"] == 2 and (out / "known" / "index.json").exists()


def test_bad_input_costs_one_line(places, capsys):
    made, mine, out = places
    compare = caller(capsys, "compare", "--out", out)
    both = ("--images", made, "--references", mine)
    assert "there is no image or folder" in one_line(compare("--images", made / "none", "--references", mine))
    assert "there is no image or folder" in one_line(compare("--images", made, "--references", mine / "none"))
    assert "alpha" in one_line(compare(*both, "--alpha", 1.5))
    assert "there is no encoder" in one_line(compare(*both, "--encoder", mine / "none.onnx"))
    assert "none of the images can be read" in one_line(compare("--images", made / "d.png", "--references", mine))
    assert "none of the references can be read" in one_line(compare("--images", made, "--references", made / "d.png"))
    (out / "compare.json").write_text("{")
    assert "remove it" in one_line(compare(*both))
