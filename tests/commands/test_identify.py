"""The commands `signature`, `identify` and `attribute` on the built-in model."""

import json

import numpy as np
import pytest
from PIL import Image

from cryptomnesia import load_demo
from cryptomnesia.attribution import Identification
from cryptomnesia.commands.app import run_app
from cryptomnesia.commands.identify import _show
from cryptomnesia.demo import WEIGHTS
from cryptomnesia.signals import spectral

from ..test_pixels import png


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two images; any will do where it does not matter who made them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(2):
        smooth = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((64, 64), 3)
        smooth.save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """A folder with an earlier state of the built-in model."""
    place = tmp_path_factory.mktemp("models") / "early"
    load_demo("early").save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """A sixth of the rows."""
    monkeypatch.setattr(spectral, "DRAWS", 1)


def run(*arguments):
    return run_app([str(argument) for argument in arguments])


def test_signature_then_identify(pictures, tmp_path, capsys):
    out, plot = tmp_path / "demo.signature.safetensors", tmp_path / "demo.png"
    assert run("signature", "--images", pictures, "--plan", "1step", "--out", out, "--plot", plot, "--json") == 0
    captured = capsys.readouterr()
    rows = "48 rows of the network, as many as 0.5 images of 50 steps"
    assert captured.err == f"2 signatures by the plan 1step will cost {rows}\n"
    about = json.loads(captured.out)
    assert about["n"] == 2 and about["plan"] == "1step" and about["name"] == "demo"
    assert Image.open(plot).width >= 560
    assert run("identify", "--library", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decision"] == "demo" and found["paired"]
    _show(Identification(**found), as_json=False)
    assert capsys.readouterr().out.startswith("likely demo")


def test_signature_makes_its_own_images(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("monkey face on blue\n")
    out = tmp_path / "own.signature.safetensors"
    assert run("signature", "--prompts", prompts, "--plan", "1step", "--out", out, "--name", "mine") == 0
    assert "mine, 1 images, plan 1step" in capsys.readouterr().out


def test_attribute_without_calibration_gives_no_verdict(pictures, early, capsys):
    two = ("--candidate", "a=demo", "--candidate", f"b={early}")
    assert run("attribute", pictures / "0.png", *two, "--json") == 5
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)["results"]
    assert found["decision"] == "uncalibrated" and set(found["distances"]) == {"a", "b"}
    assert "--learn" in captured.err
    rows = "46 rows of the network, as many as 0.5 images of 50 steps"
    assert (
        f"1 image under 2 candidates will cost {rows}, and 27 times each image's way through an autoencoder"
        in captured.err
    )


def learning(place, count=8):
    """Folders of blobs for two candidates, all of one prompt."""
    for seed, name in enumerate(("a", "b")):
        (place / name).mkdir()
        rng = np.random.default_rng(5 + seed)
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            coarse.resize((64, 64), 3).save(place / name / f"{i}.png")
            (place / name / f"{i}.txt").write_text("a blob")
    return ("--candidate", "a=demo"), ("--learn", f"a={place / 'a'}", "--learn", f"b={place / 'b'}")


def test_attribute_learns_and_says_what_it_cannot_answer(pictures, early, tmp_path, capsys):
    candidates, learn = learning(tmp_path)
    candidates, out = (*candidates, "--candidate", f"b={early}"), tmp_path / "x.attribution.safetensors"
    for file in (tmp_path / "b").glob("*.txt"):
        file.write_text("a dog in the snow")
    assert run("attribute", *candidates, *learn, "-c", out, "--alpha", 0.1) == 0
    assert "no verdict between a and b: their prompts differ" in capsys.readouterr().err
    asked = run("attribute", pictures / "0.png", *candidates, "-c", out, "--json")
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert found["decision"] in ("confounded", "none of these") and asked == (5 if found["p_value"] is None else 0)
    assert run("attribute", tmp_path / "a" / "3.png", *candidates, "-c", out) == 5
    assert "No verdict: it is one of the images that were learned from" in capsys.readouterr().out
    image = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "b" / "again.png").write_bytes(image)
    assert run("attribute", *candidates, *learn, "-c", out, "--alpha", 0.1) == 2
    assert "the same image is given as by 'a' and as by 'b'" in capsys.readouterr().err


def no_picture(place, kind):
    """A file that nothing can be measured on."""
    if kind == "bomb":
        return place.write_bytes(png(60000, 60000))
    image = Image.new("RGBA" if kind == "transparent" else "RGB", (8, 8) if kind == "tiny" else (64, 64))
    more = {"save_all": True, "append_images": [Image.new("RGB", image.size, "red")]}
    return image.save(place, **more if kind == "animated" else {})


@pytest.mark.parametrize("command", ["attribute", "signature"])
@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("bomb", "x.png", "would unpack to"),
        ("tiny", "x.png", "8x8 pixels, which say nothing"),
        ("transparent", "x.png", "transparent parts"),
        ("animated", "x.gif", "is animated"),
    ],
)
def test_images_that_say_nothing_cost_one_line(command, kind, name, words, capsys, tmp_path):
    no_picture(tmp_path / name, kind)
    out = tmp_path / "x.signature.safetensors"
    one = ("--candidate", "a=demo")
    given = (tmp_path / name, *one) if command == "attribute" else ("--images", tmp_path / name, "--out", out)
    assert run(command, *given) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["attribute", "x.png", "--candidate", "a=demo"], "there is no image or folder x.png"),
        (["attribute"], "no candidate was named"),
        (["attribute", "--candidate", "a=demo"], "no image was given"),
        (["attribute", "--candidate", "demo"], "takes NAME=MODEL, not 'demo'"),
        (["attribute", "--candidate", "a=demo", "--candidate", "a=demo"], "names 'a' twice"),
        (["attribute", "--candidate", "a=demo", "--learn", f"b={WEIGHTS}"], "name the same"),
        (["signature", "--out", "x.json"], "does not end in .signature.safetensors"),
        (["signature", "--out", "nowhere/x.signature.safetensors"], "cannot be written"),
        (["signature", "--out", "x.signature.safetensors", "--plan", "full"], "unknown plan 'full'"),
        (["identify", "--library", "nowhere"], "there is no signature file"),
        (["identify", "--library", "nowhere", "--svm"], "--svm needs images"),
        (["identify", "--library", "nowhere", "--alpha", "2"], "--alpha is a share"),
    ],
)
def test_bad_input_costs_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
