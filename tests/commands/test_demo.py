"""`cryptomnesia demo`, on a tiny model with random weights."""

import json

import numpy as np
import pytest

from cryptomnesia.calibration import calibrate
from cryptomnesia.cli import run
from cryptomnesia.demo import showcase
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery

from ..helpers import pipelines
from ..helpers.markup import parsed


@pytest.fixture
def tiny_demo(monkeypatch, tmp_path):
    """The demo command on a tiny model; a gallery of two images of its size."""
    from cryptomnesia.adapters import to_denoiser

    pipe = pipelines.build("sd1")
    denoiser = to_denoiser(pipe)
    calibration = calibrate(denoiser, denoiser.encode([f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]))
    images = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (60, 180)])
    gallery = Gallery(select("verbatim")[:2], images, np.ones((2, 16, 16), bool))
    monkeypatch.setattr("cryptomnesia.demo.load_demo", lambda: pipe)
    monkeypatch.setattr("cryptomnesia.demo.demo_calibration", lambda: calibration)
    monkeypatch.setattr(Gallery, "load", staticmethod(lambda: gallery))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_command(tiny_demo, capsys):
    assert run(["demo", "--seeds", "2", "--no-open"]) == 0
    out, err = capsys.readouterr()
    prompts = [caption.text for caption in showcase.prompts()]
    assert all(prompt in out for prompt in prompts) and "cryptomnesia-demo/index.html" in out
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "loading the built-in model",
        "now sampling 24 images, to see if it was right",
    ]
    assert sorted(file.name for file in (tiny_demo / "cryptomnesia-demo").iterdir()) == ["index.html", "report.json"]
    html = (tiny_demo / "cryptomnesia-demo" / "index.html").read_text(encoding="utf-8")
    found = parsed(html)
    assert found.seen.count("img") == 12 * 3 and found.seen.count("article") == 12
    written = json.loads((tiny_demo / "cryptomnesia-demo" / "report.json").read_text())
    assert [entry["report"]["prompt"] for entry in written["prompts"]] == prompts
    assert all(len(entry["distances"]) == 2 for entry in written["prompts"])


def test_demo_as_json_into_a_folder_that_cannot_be(tiny_demo, capsys):
    assert run(["demo", "--seeds", "1", "--no-open", "--json", "--out", "deep/er"]) == 0
    assert len(json.loads(capsys.readouterr().out)["prompts"]) == 12
    (tiny_demo / "file").write_text("")
    assert run(["demo", "--out", "file"]) == 2
    assert "a file is in the way" in capsys.readouterr().err
