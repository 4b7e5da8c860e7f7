"""Lineage asks about the same prompts and about different images, or says first that it does not know."""

import json
import shutil
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from cryptomnesia import load_demo
from cryptomnesia.errors import InputError
from cryptomnesia.lineage import OnnxEncoder, find_parent

from ..helpers.commands import caller, one_line
from ..helpers.lineages import COLOURS, encoder_file, folder, pictures

NAMES, COUNT = ("ada", "bo", "cy"), 12
OPTIONS: dict[str, Any] = {"dimension": 3, "draws": 10}


@pytest.fixture(scope="module")
def means(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder") / "means.onnx"
    return OnnxEncoder(encoder_file(place, metadata={"mean": "0 0 0", "std": "1 1 1"}))


@pytest.fixture
def places(tmp_path):
    """Folders of images by three models, and of a child of the first, that say nothing of their prompts."""
    for number, name in enumerate(NAMES):
        folder(tmp_path / name, pictures(COLOURS[name], COUNT, seed=number))
    folder(tmp_path / "target", pictures((200, 60, 40), COUNT, seed=9))
    return tmp_path


def parent_of(places, means, **more):
    return find_parent(places / "target", {name: places / name for name in NAMES}, encoder=means, **OPTIONS | more)


def parameters(place, prompt):
    """Gives the images of a folder a prompt, as A1111 does."""
    for file in place.glob("*.png"):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("parameters", f"{prompt}\nNegative prompt: dog\nSteps: 20, Sampler: Euler")
        with Image.open(file) as image:
            image.load()
        image.save(file, pnginfo=chunks)


def graph(place, prompt):
    """As ComfyUI does."""
    nodes = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["3", 1]}},
    }
    for file in place.glob("*.png"):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("prompt", json.dumps(nodes))
        with Image.open(file) as image:
            image.load()
        image.save(file, pnginfo=chunks)


def beside(place, prompt):
    for file in place.glob("*.png"):
        file.with_suffix(".txt").write_text(prompt)


def sidecar(place, prompt):
    told = {"predicate": {"prompt": {"mode": "plain", "original": prompt, "rewritten": None, "negative": None}}}
    for file in place.glob("*.png"):
        file.with_name(f"{file.name}.cryptomnesia.json").write_text(json.dumps(told))


def record(place, prompt):
    (place / "images.json").write_text(json.dumps({"prompt": prompt}))


WAYS = [parameters, graph, beside, sidecar, record]


@pytest.mark.parametrize("way", WAYS)
def test_prompts_that_are_told_and_the_same(way, places, means):
    for name in (*NAMES, "target"):
        way(places / name, "a red  spot, <lora:child:1>" if name == "target" else "A red spot")
    found = parent_of(places, means)
    assert found.prompts_known and found.parent == "ada" and found.headline().endswith("ly a child of ada")
    assert found.to_dict()["prompts_told"] is True


@pytest.mark.parametrize("way", WAYS)
def test_prompts_that_are_told_and_different(way, places, means):
    for name in (*NAMES, "target"):
        way(places / name, "a dog" if name == "bo" else "a cat")
    with pytest.raises(InputError, match="bo has images of 'a dog', the target of 'a cat'") as error:
        parent_of(places, means)
    assert "\n" not in str(error.value)


def test_one_folder_of_several_prompts(places, means):
    beside(places / "bo", "a cat")
    (places / "bo" / "003.txt").write_text("a dog")
    with pytest.raises(InputError, match="bo has images of 'a cat' and of 'a dog' in one folder"):
        parent_of(places, means)


def test_what_is_known_of_some_is_checked(places, means):
    beside(places / "bo", "a cat")
    assert not parent_of(places, means).prompts_known
    beside(places / "cy", "a dog")
    with pytest.raises(InputError, match="cy has images of 'a dog', bo of 'a cat'"):
        parent_of(places, means)


def test_names_of_prompts_do_not_hide_what_images_say(places, means):
    shown = {}
    for name in (*NAMES, "target"):
        beside(places / name, "a dog" if name == "cy" else "a cat")
        shown[name] = {"animal": sorted((places / name).glob("*.png"))}
    target = shown.pop("target")
    with pytest.raises(InputError, match="cy has images of 'a dog', the target of 'a cat'"):
        find_parent(target, shown, encoder=means, **OPTIONS)


def test_nothing_told_is_said_first(places, means):
    found = parent_of(places, means)
    assert not found.prompts_known and found.to_dict()["prompts_told"] is False
    assert found.headline().startswith("If all show the same prompts: ")
    assert found.notes()[0].startswith("Nothing tells whether all models were given the same prompts")
    assert found.to_dict()["notes"] == found.notes() and found.plot().width == 620


def test_the_same_images_are_no_child(places, means):
    shutil.rmtree(places / "target")
    shutil.copytree(places / "ada", places / "target")
    with pytest.raises(
        InputError, match=r"the target and ada have 12 of 12 images in common, e\.g\. 000\.png"
    ) as error:
        parent_of(places, means)
    assert "the same images" in str(error.value) and "\n" not in str(error.value)


def test_two_models_of_a_pool_with_the_same_images(places, means):
    shutil.rmtree(places / "cy")
    shutil.copytree(places / "bo", places / "cy")
    with pytest.raises(InputError, match="bo and cy have 12 of 12 images in common"):
        parent_of(places, means)


def test_one_image_in_common_in_another_format(places, means):
    with Image.open(places / "ada" / "004.png") as image:
        image.save(places / "target" / "007.bmp")
    (places / "target" / "007.png").unlink()
    with pytest.raises(InputError, match=r"have 1 of 12 images in common, e\.g\. 004\.png"):
        parent_of(places, means)


def test_one_image_of_two_prompts(places, means):
    shown = {name: sorted((places / name).glob("*.png")) for name in (*NAMES, "target")}
    twice = {name: {"a": images, "b": images} for name, images in shown.items()}
    with pytest.raises(InputError, match="the target shows the same image of 'a' and of 'b'"):
        find_parent(twice.pop("target"), twice, encoder=means, **OPTIONS)


def test_a_model_that_cannot_be_told_from_its_parent(means):
    # the same models again, with other noise
    pool = {name: pictures(COLOURS[name], 60, seed=i) for i, name in enumerate(NAMES)}
    found = find_parent(pictures(COLOURS["ada"], 60, seed=77), pool, encoder=means, **OPTIONS)
    assert found.parent == "ada"
    told = any("it may be that very model" in note for note in found.notes())
    assert told == (found.distances["ada"] < 0.01)


# --- the command ---


def test_the_command_says_it_first(places, capsys, monkeypatch):
    monkeypatch.chdir(places)
    command = caller(capsys, "lineage", "-t", "target", *(f"--pool={name}={name}" for name in NAMES), "-o", "out")
    code, out, _ = command()
    assert code == 0 and out.startswith("If all show the same prompts: ")
    page = (places / "out" / "lineage.html").read_text()
    assert "If all show the same prompts: " in page and "Nothing tells whether" in page
    code, out, _ = command("--json")
    assert json.loads(out)["prompts_told"] is False
    code, out, _ = command("--prompt", "a red spot", "--json")
    assert json.loads(out)["prompts_told"] is True  # who asks says so
    for name in NAMES:
        beside(places / name, "a red spot")
    beside(places / "target", "a dog")
    assert "'a dog'" in one_line(command("--prompt", "a red spot"))


def test_models_of_equal_weights_are_named_before_images_are_made(places, capsys, monkeypatch):
    monkeypatch.chdir(places)
    load_demo().save_pretrained(places / "model")
    command = caller(capsys, "lineage", "-p", "a cat", "--images", 11, "--steps", 1, "-o", "out")
    assert "the target and copy have equal weights" in one_line(command("-t", "demo", "--pool", "copy=model"))
    twice = command("-t", "ada", "--pool", "one=model", "--pool", "two=demo")
    assert "one and two have equal weights" in one_line(twice)
    assert not (places / "out").exists()
