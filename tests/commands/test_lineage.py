"""`cryptomnesia lineage` as its users meet it, and the images that it makes and keeps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia import load_demo
from cryptomnesia.errors import InputError, NonFiniteError, OutOfMemory
from cryptomnesia.lineage import Recipe, generate

from ..helpers.commands import caller
from ..helpers.lineages import COLOURS, folder, pictures


class Painter:
    """A pipeline that makes noise, and counts how often it is asked."""

    def __init__(self, error: BaseException | None = None, value: float | None = None):
        self.asked: list[int] = []
        self.error, self.value = error, value

    def __call__(self, prompt, num_inference_steps=50, guidance_scale=7.5, generator=None, output_type="pil"):
        self.asked.append(len(prompt))
        if self.error is not None and len(self.asked) > 1:
            raise self.error
        made = [torch.rand(48, 48, 3, generator=one).numpy() for one in generator]
        images = np.stack(made) if self.value is None else np.full((len(made), 48, 48, 3), self.value)
        return type("Output", (), {"images": images})

    def set_progress_bar_config(self, disable):
        pass


RECIPE = Recipe("a cat", "model", steps=2, guidance=3.0)


# --- making images ---


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    whole = generate(Painter(), RECIPE, tmp_path / "whole", count=10, per_call=4)
    with pytest.raises(KeyboardInterrupt):
        generate(Painter(error=KeyboardInterrupt()), RECIPE, tmp_path / "torn", count=10, per_call=4)
    assert len(list((tmp_path / "torn").glob("*.png"))) == 4
    painter, done = Painter(), []
    rest = generate(painter, RECIPE, tmp_path / "torn", count=10, per_call=4, progress=lambda *told: done.append(told))
    assert painter.asked == [4, 2] and done == [(4, 10), (8, 10), (10, 10)]
    assert [file.read_bytes() for file in rest] == [file.read_bytes() for file in whole]
    assert not list((tmp_path / "torn").glob(".*"))
    again = Painter()
    generate(again, RECIPE, tmp_path / "torn", count=10)
    assert again.asked == []


def test_no_two_models_share_a_noise():
    recipes = [RECIPE, Recipe("a cat", "other"), Recipe("a dog", "model"), Recipe("a cat", "model", seed=1)]
    seeds = {recipe.noise_seed(number) for recipe in recipes for number in range(50)}
    assert len(seeds) == 200 and max(seeds) < 2**48


def test_images_of_another_recipe_are_refused(tmp_path):
    generate(Painter(), RECIPE, tmp_path, count=1)
    with pytest.raises(InputError, match="made with other settings"):
        generate(Painter(), Recipe("a cat", "model", steps=3), tmp_path, count=2)
    (tmp_path / "images.json").write_text("{")
    with pytest.raises(InputError, match="cannot hold the images"):
        generate(Painter(), RECIPE, tmp_path, count=2)


@pytest.mark.parametrize(
    ("pipe", "kind", "words"),
    [
        (Painter(error=torch.OutOfMemoryError("no")), OutOfMemory, "no memory for 2 images"),
        (Painter(error=ValueError("odd size")), InputError, "Painter refuses to sample: odd size"),
        (Painter(value=float("nan")), NonFiniteError, "NaN or infinity"),
    ],
)
def test_what_goes_wrong_in_a_pipeline_is_named(pipe, kind, words, tmp_path):
    with pytest.raises(kind, match=words):
        generate(pipe, RECIPE, tmp_path, count=4, per_call=2)


# --- the command ---


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of images by three models, and of a child of the first."""
    root = tmp_path_factory.mktemp("lineage")
    for number, name in enumerate(("ada", "bo", "cy")):
        folder(root / name, pictures(COLOURS[name], 14, seed=number))
    folder(root / "child", pictures((200, 60, 40), 14, seed=9))
    load_demo("early").save_pretrained(root / "model")
    return root


@pytest.fixture
def command(place, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr."""
    monkeypatch.chdir(place)
    return caller(capsys, "lineage")


POOL = ("--pool", "ada=ada", "--pool", "bo=bo", "--pool", "cy=cy")


def test_folders_of_images(command, place, tmp_path):
    code, out, err = command("-t", "child", *POOL, "-o", tmp_path / "out")
    assert code == 0 and "a child of ada" in out and "a parent is below" in out
    assert "Only 14 images of a model and prompt" in out and "kept in" in err
    report = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert report["parent"] == "ada" and set(report["distances"]) == {"ada", "bo", "cy"}
    assert Image.open(tmp_path / "out" / "lineage.png").width == 620
    page = (tmp_path / "out" / "lineage.html").read_text()
    assert "a child of ada" in page and page.count("<img") == 4 * 8 and str(place) not in page


def test_json_for_machines(command, tmp_path):
    code, out, _ = command("-t", "child", *POOL, "-o", tmp_path, "-p", "a red spot", "--json")
    found = json.loads(out)
    assert code == 0 and found["schema"] == "cryptomnesia/lineage/1" and found["parent"] == "ada"
    assert [one["prompt"] for one in found["prompts"]] == ["a red spot"]


def test_models_make_their_images_once(command, tmp_path):
    arguments = ("-t", "demo", "--pool", "model=model", "--pool", "ada=ada", "-p", "the solemn fiddle of arden")
    settings = ("--images", 11, "--steps", 1, "-o", tmp_path, "--json")
    code, out, err = command(*arguments, *settings)
    assert code == 5, err  # a pool of two cannot be tested
    assert json.loads(out)["decision"] == "not tested"
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert len(files) == 22
    before = [(file, file.stat().st_mtime_ns) for file in files]
    files[3].unlink()
    again = command(*arguments, *settings)
    assert again[0] == 5 and json.loads(again[1])["distances"] == pytest.approx(json.loads(out)["distances"], rel=1e-3)
    changed = [file for file, time in before if file.stat().st_mtime_ns != time]
    assert changed == [files[3]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-t", "child"), "the pool is empty"),
        (("-t", "demo", *POOL), "the target must be asked for something: give --prompt"),
        (("-t", "child", "--pool", "ada"), "--pool takes NAME=FOLDER|MODEL"),
        (("-t", "child", "--pool", "ada=ada", "--pool", "ada=bo"), "names 'ada' twice"),
        (("-t", "none", *POOL), "there is no folder none"),
        (("-t", "child", *POOL, "-p", " "), "an empty prompt"),
        (("-t", "child", *POOL, "-p", "a", "-p", "b", "--pool", "demo=model/unet"), "holds no images"),
        (("-t", "child", *POOL, "--encoder", "child/000.png"), "is no encoder"),
        (("-t", "child", *POOL, "--guidance", "inf"), "--guidance is a number"),
        (("-t", "child", *POOL, "--images", "10"), "11"),
    ],
)
def test_bad_input_costs_one_line(command, tmp_path, arguments, words):
    code, out, err = command(*arguments, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert words in err and err.startswith("cryptomnesia: ") and err.count("\n") == 1
