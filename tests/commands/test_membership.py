"""The command `membership` on the built-in model."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from cryptomnesia import membership
from cryptomnesia.commands.app import run_app
from cryptomnesia.membership import CONFOUNDED, GENERATED, LIKELY, NO_EVIDENCE

FEW = ("--draws", "2")
measuring = import_module("cryptomnesia.membership.measure")  # the function of that name hides it
numbers = import_module("cryptomnesia.membership.numbers")


def fill(folder, count, seed):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text("a blob on blue")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return fill(root / "suspects", 12, 0), fill(root / "references", 12, 1), fill(root / "few", 4, 2)


def run(*arguments):
    return run_app(["membership", *map(str, arguments)])


def asked(folders, out, *more):
    return run("--suspects", folders[0], "--references", folders[1], "--out", out, *FEW, *more)


def test_a_folder_twice(folders, tmp_path, capsys, monkeypatch):
    assert asked(folders, tmp_path / "out", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    cost = "24 images will cost 48 rows of the network, as many as 0.5 images of 50 steps"
    assert captured.err.splitlines()[0] == cost
    assert found["verdict"] == "no evidence" and found["suspects"]["images"] == 12
    assert json.loads((tmp_path / "out" / "membership.json").read_text()) == found
    assert Image.open(tmp_path / "out" / "membership.png").width == 680

    def never(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(numbers, "statistics", never)
    assert asked(folders, tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("No evidence of training on these images") and "kept in" in captured.err
    assert captured.err.splitlines()[0] == cost + ", less what is kept"


def test_stopped_and_resumed(folders, tmp_path, capsys, monkeypatch):
    whole, calls = numbers.statistics, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(measuring, "rows_per_call", lambda *values: 10)  # five images at a time
    monkeypatch.setattr(numbers, "statistics", stopped)
    assert asked(folders, tmp_path, "--prompts") == 130
    kept = json.loads((tmp_path / "statistics.json").read_text())["statistics"]
    assert len(kept) == 5
    assert asked(folders, tmp_path, "--prompts", "--json") == 0
    resumed = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(numbers, "statistics", whole)
    assert asked(folders, tmp_path / "fresh", "--prompts", "--json") == 0
    assert json.loads(capsys.readouterr().out) == resumed


def test_gradients(folders, tmp_path, capsys):
    assert asked(folders, tmp_path, "--features", "gradients", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0].startswith("24 images will cost 192 rows of the network")
    found = json.loads(captured.out)
    assert found["settings"]["features"] == "gradients" and found["verdict"] == "no evidence"
    kept = json.loads((tmp_path / "statistics.json").read_text())
    assert len(kept["statistics"]) == len(kept["vectors"]) == 24


def test_a_single_image(folders, tmp_path, capsys):
    image = folders[2] / "00.png"
    where = ("--references", folders[1], "--members", folders[0], "--out", tmp_path, *FEW)
    assert run("--suspects", image, *where) == 5
    out = capsys.readouterr().out
    assert out.startswith("Weak evidence: likelihood ratio") and "A single image is weak evidence at best" in out


@pytest.mark.parametrize(("verdict", "code"), [(LIKELY, 3), (NO_EVIDENCE, 0), (CONFOUNDED, 5), (GENERATED, 5)])
def test_exit_codes_tell_the_verdict(verdict, code, folders, tmp_path, monkeypatch):
    whole = membership.membership_test
    monkeypatch.setattr(
        membership, "membership_test", lambda *given, **more: replace(whole(*given, **more), verdict=verdict)
    )
    assert asked(folders, tmp_path / "out") == code


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--suspects": "nowhere"}, "there is no image or folder nowhere"),
        ({"--references": "nowhere"}, "--references nowhere is no folder"),
        ({"--members": "suspects"}, "--members is for one image"),
        ({"--alpha": "2"}, "--alpha is a false-alarm rate"),
        ({"--method": "magic"}, "unknown method 'magic'"),
        ({"--features": "magic"}, "unknown features 'magic'"),
        ({"--features": "gradients", "--suspects": "suspects/00.png"}, "leave it out for a single image"),
        ({"--timestep": "5000"}, "timesteps lie in"),
        ({"--references": "few"}, "the references are 4 images, and less than 10"),
        ({"--references": "suspects"}, "12 pictures are in both sets"),
        ({"--out": "few/00.png"}, "cannot be a folder"),
        ({"--model": "nowhere"}, "nowhere"),
    ],
)
def test_bad_input_costs_one_line(change, words, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folders[0].parent)
    given = {"--suspects": "suspects", "--references": "references", "--out": str(tmp_path)} | change
    assert run(*(part for pair in given.items() for part in pair), *FEW) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if " will cost " not in line]  # some is seen once measured
    assert len(lines) == 1 and words in lines[0]


def test_a_broken_store_is_found_first(folders, tmp_path, capsys):
    (tmp_path / "statistics.json").write_text("{")
    assert asked(folders, tmp_path) == 2
    assert "remove it to measure again" in capsys.readouterr().err
