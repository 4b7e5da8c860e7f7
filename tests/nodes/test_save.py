"""Save Image with Provenance: the image as ComfyUI's own node saves it, and nothing half-written."""

import errno
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.sidecar import read_statement, sidecar_path, verify

from .graphs import complaint, given, ours, part, ran
from .harness import Comfy
from .results import node

TOKENS = ["plain", "sub/folder/name", "%width%x%height%", "%year%-%month%-%day%", "b%batch_num%", "a_1", "ends/", "ü é"]
WORKFLOW = {"extra_pnginfo": {"workflow": {"nodes": [1, 2]}, "more": "words"}}

pytestmark = pytest.mark.usefixtures("output")


def pictures(count: int = 1, channels: int = 3) -> torch.Tensor:
    """Also values that no file can hold."""
    return torch.rand(count, 8, 12, channels, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1


def saving(comfy: Comfy, images: torch.Tensor, prefix: str = "made", **changes) -> dict[str, Any]:
    inputs = {"images": ["images", 0], "filename_prefix": prefix} | changes
    return {"images": given(comfy, images), "save": ours(comfy, "SaveImage", **inputs)}


def plainly(comfy: Comfy, images: torch.Tensor, prefix: str) -> dict[str, Any]:
    return {"images": given(comfy, images), "save": node("SaveImage", images=["images", 0], filename_prefix=prefix)}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("prefix", TOKENS)
def test_names_are_those_of_save_image(comfy: Comfy, output: Path, prefix: str, monkeypatch: pytest.MonkeyPatch):
    now = time.localtime()
    monkeypatch.setattr(time, "localtime", lambda *_: now)  # both in the same second
    shown, expected = [], []
    for make in (plainly, saving):
        shutil.rmtree(output)
        output.mkdir()
        for count in (2, 1):  # the second run counts on
            result = ran(comfy, make(comfy, pictures(count), prefix))
            shown.append(result.ui["save"]["images"])
        if make is plainly:
            expected = files(output)
    assert shown[:2] == [list(entry) for entry in shown[2:]]
    found = files(output)
    assert [name for name in found if name.endswith(".png")] == expected
    assert found == sorted(expected + [f"{name}.cryptomnesia.json" for name in expected])
    assert result.outputs["save"][0] == str(Path(shown[3][0]["subfolder"]) / shown[3][0]["filename"])


@pytest.mark.parametrize("channels", [3, 4, 1])
def test_pixels_and_metadata_are_those_of_save_image(comfy: Comfy, output: Path, channels: int):
    images = pictures(2, channels)
    if channels == 1:  # which Save Image cannot save
        images = images.repeat(1, 1, 1, 3)
    ran(comfy, plainly(comfy, images, "plain"), extra_data=WORKFLOW)
    prompt = saving(comfy, images)
    ran(comfy, prompt, extra_data=WORKFLOW)
    for number in (1, 2):
        own, other = (Image.open(output / f"{name}_0000{number}_.png") for name in ("made", "plain"))
        assert own.mode == other.mode and np.array_equal(np.asarray(own), np.asarray(other))
        assert own.text.keys() == other.text.keys() == {"prompt", "workflow", "more"}
        assert own.text["workflow"] == other.text["workflow"] and own.text["more"] == '"words"'
        assert json.loads(own.text["prompt"])["save"]["inputs"] == prompt["save"]["inputs"]


def test_each_image_of_a_batch_has_a_sidecar(comfy: Comfy, output: Path):
    result = ran(comfy, saving(comfy, pictures(3)))
    names = result.outputs["save"][0].splitlines()
    assert names == [f"made_0000{number}_.png" for number in (1, 2, 3)]
    assert all(verify(output / name).matches for name in names)
    digests = {read_statement(sidecar_path(output / name))["predicate"]["pixels"]["sha256"] for name in names}
    assert len(digests) == 3
    assert "made_00001_.png.cryptomnesia.json" in result.ui["save"]["text"][0]


def test_without_metadata_nothing_tells_the_prompt(comfy: Comfy, output: Path, monkeypatch: pytest.MonkeyPatch):
    import comfy.cli_args as settings

    monkeypatch.setattr(settings.args, "disable_metadata", True)
    secret = "the secret lighthouse"
    prompt = saving(comfy, pictures(), prompts="plain", report=["report", 0])
    prompt["report"] = given(comfy, {"verdict": "clear", "prompt": secret, "note": f"about {secret}"})
    ran(comfy, prompt, extra_data=WORKFLOW)
    for path in output.iterdir():
        assert b"secret" not in path.read_bytes()
    assert Image.open(output / "made_00001_.png").text == {}
    statement = read_statement(output / "made_00001_.png.cryptomnesia.json")
    assert statement["predicate"]["prompt"] == {"mode": "none", "original": None, "rewritten": None, "negative": None}


OUTSIDE = [(prefix, "output folder") for prefix in ("../x", "../../x", "a/../../x", "/tmp/x")]


@pytest.mark.parametrize(("prefix", "words"), [*OUTSIDE, ("a\0b/c", "cannot be seen"), ("a\nb", "cannot be seen")])
def test_nothing_is_written_outside(comfy: Comfy, output: Path, prefix: str, words: str):
    before = files(comfy.base)
    line = complaint(comfy, saving(comfy, pictures(), prefix))
    assert line.startswith("CryptomnesiaSaveImage save:") and words in line
    assert set(files(comfy.base)) == set(before)


def test_a_link_leads_nowhere_else(comfy: Comfy, output: Path, tmp_path: Path):
    (output / "link").symlink_to(tmp_path, target_is_directory=True)
    assert "leads out" in complaint(comfy, saving(comfy, pictures(), "link/x"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(comfy: Comfy, output: Path):
    (output / "file").write_text("in the way")
    line = complaint(comfy, saving(comfy, pictures(), "file/x"))
    assert "'file/x'" in line and files(output) == ["file"]


def failing(number: int, after: int, ending: str):
    """os.replace with no space for the files after so many with that ending; what is on disk then is what stays."""
    import os

    counted = {"seen": 0}

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(ending):
            counted["seen"] += 1
            if counted["seen"] > after:
                raise OSError(number, os.strerror(number))
        os.rename(source, target)

    return replace


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize(("ending", "left"), [(".png", [1]), (".cryptomnesia.json", [1, 2, 3])])
def test_a_full_disk_is_told_once_and_leaves_no_half_files(
    comfy: Comfy, output: Path, monkeypatch: pytest.MonkeyPatch, number: int, ending: str, left: list[int]
):
    writing = part(comfy, "guard.files")
    monkeypatch.setattr(writing.os, "replace", failing(number, 1, ending))
    line = complaint(comfy, saving(comfy, pictures(3)))
    monkeypatch.undo()
    words = "free some space" if number == errno.ENOSPC else "that you may write to"
    assert line.startswith("CryptomnesiaSaveImage save:") and words in line and "made_00002_.png" in line
    images = [f"made_0000{k}_.png" for k in left]
    assert files(output) == sorted([*images, "made_00001_.png.cryptomnesia.json"])
    assert verify(output / "made_00001_.png").matches
    for name in images:
        Image.open(output / name).load()


def test_the_rest_of_a_batch_is_saved(comfy: Comfy, output: Path):
    images = pictures(3)
    images[1, 0, 0] = float("nan")
    line = complaint(comfy, saving(comfy, images))
    assert "NaN" in line
    assert [name for name in files(output) if name.endswith(".png")] == ["made_00001_.png", "made_00003_.png"]


def test_no_older_image_is_replaced(comfy: Comfy, output: Path):
    ran(comfy, saving(comfy, pictures(2)))
    before = {name: (output / name).read_bytes() for name in files(output)}
    ran(comfy, saving(comfy, 1 - pictures(2)))
    assert all((output / name).read_bytes() == data for name, data in before.items())
    assert len(files(output)) == 8
