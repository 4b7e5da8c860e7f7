"""What images say about their prompts, and what is not believed."""

import json
import os

import pytest
from PIL import Image, PngImagePlugin

from cryptomnesia.prompts.recorded import alike, known_prompts, recorded_prompt

A1111 = "a cat, <lora:fur:0.7>\non a roof\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7"


def picture(place, info=None, **options):
    """A small image with text chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (info or {}).items():
        chunks.add_text(key, value)
    options = options or {"pnginfo": chunks}
    Image.new("RGB", (40, 40), "red").save(place, **options)
    return place


def graph(**changes):
    """ComfyUI's, of one sampler and one text."""
    nodes = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0], "seed": 1}},
        "2": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["4", 0], "guidance": 3.5}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["9", 1]}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": ["5", 0], "clip": ["9", 1]}},
        "5": {"class_type": "PrimitiveString", "inputs": {"value": "a cat"}},
        "9": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}},
    }
    return json.dumps(nodes | changes)


def test_all_places_are_read(tmp_path):
    assert recorded_prompt(picture(tmp_path / "a.png", {"parameters": A1111})) == "a cat, <lora:fur:0.7>\non a roof"
    assert recorded_prompt(picture(tmp_path / "b.png", {"prompt": graph()})) == "a cat"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    for name in ("c.jpg", "d.webp"):
        assert recorded_prompt(picture(tmp_path / name, exif=exif)).startswith("a cat, <lora")
    (tmp_path / "e.txt").write_text("a dog\n")
    assert recorded_prompt(picture(tmp_path / "e.png")) == "a dog"
    assert recorded_prompt(Image.open(tmp_path / "a.png")).endswith("on a roof")
    said = {"predicate": {"prompt": {"mode": "plain", "original": "a bird", "rewritten": None, "negative": None}}}
    (tmp_path / "a.png.cryptomnesia.json").write_text(json.dumps(said))
    assert recorded_prompt(tmp_path / "a.png") == "a bird"
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "images.json").write_text('{"prompt": "a fish"}')
    assert recorded_prompt(picture(tmp_path / "made" / "0.png")) == "a fish"
    assert known_prompts([tmp_path / "a.png", tmp_path / "e.png"]) == ["a bird", "a dog"]
    assert known_prompts([tmp_path / "a.png", picture(tmp_path / "f.png")]) is None


SAMPLER = {"class_type": "KSampler", "inputs": {"positive": ["3", 0], "negative": ["4", 0]}}


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"parameters": "no settings here"},
        {"prompt": "{"},
        {"prompt": "[]"},
        {"prompt": "{}"},
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"positive": 3}}}'},
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0]}}}'},
        {"prompt": graph(**{"6": SAMPLER})},  # two samplers, two texts
        {"prompt": graph(**{"2": {"class_type": "ControlNetApply", "inputs": {"conditioning": ["4", 1]}}})},
        {"prompt": graph(**{"5": {"class_type": "Join", "inputs": {"text": ["7", 0], "string": "b"}}})},
        {"prompt": graph(**{"5": {"class_type": "Wildcards", "inputs": {"text": "__animal__", "other": ["7", 0]}}})},
        {"prompt": "[" * 100_000},
    ],
)
def test_what_cannot_be_relied_on_is_not_known(info, tmp_path):
    assert recorded_prompt(picture(tmp_path / "a.png", info)) is None


def test_no_image_and_hostile_files(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "a.png.cryptomnesia.json").write_text('{"predicate": []}')
    (tmp_path / "images.json").write_text("[1]")
    assert recorded_prompt(tmp_path / "a.png") is None
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("nowhere.png", "pipe.png", "."):
        assert recorded_prompt(tmp_path / name) is None
    assert recorded_prompt(object()) is None


def test_prompts_that_ask_for_the_same():
    assert alike("A  cat,\n<lora:fur:.5> on a roof ,") == alike("a cat, on a roof") == "a cat , on a roof"
    assert alike("<lora:x:1>, a cat") == alike("a cat")
    assert alike("a cat") != alike("a dog")
