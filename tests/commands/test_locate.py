"""`cryptomnesia locate`, as its users meet it: exit codes, files that belong together, one line for bad input."""

import json

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.sidecar import read_statement, verify, verify_evidence

from ..helpers.commands import caller, one_line
from ..helpers.guarded import flags_all, flags_none
from ..helpers.pipelines import build

SMALL = ["--height", 16, "--width", 16, "--steps", 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and calibrations that flag everything and nothing."""
    place = tmp_path_factory.mktemp("locate")
    build("sd1").save_pretrained(place / "model")
    flags_all("sd1").save(place / "all.calibration.json")
    flags_none("sd1").save(place / "none.calibration.json")
    return place


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr."""
    monkeypatch.chdir(folder)
    return caller(capsys, "locate")


def test_files_belong_together_and_the_sidecar_vouches_for_them(command, tmp_path):
    code, out, err = command("-m", "model", "-c", "all.calibration.json", "-p", "a [red] cat", "-o", tmp_path, *SMALL)
    assert code == 3
    rows = "16 rows of the network, as many as 0.2 images of 50 steps"
    assert err == f"4 probes of the map and its outline will cost {rows}, beside the image and its check\n"
    assert out.startswith("▲ likely memorized") and "a [red] cat" in out and "likely reproduced:" in out
    names = {"image.png", "image.png.cryptomnesia.json", "map.png", "map.npy", "mask.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    values = np.load(tmp_path / "map.npy", allow_pickle=False)
    assert mask.shape == values.shape == (16, 16) and set(np.unique(mask)) == {0, 255} and values.dtype == np.float32
    assert verify(tmp_path / "image.png").matches
    for name in ("map.png", "mask.png"):
        assert verify(tmp_path / name).result == "cannot tell"
        assert verify_evidence(tmp_path / name).result == "nobody vouches"
    said = read_statement(tmp_path / "image.png.cryptomnesia.json")["predicate"]
    assert {entry["kind"]: entry["name"] for entry in said["evidence"]} == {
        "heatmap": "map.png",
        "map": "map.npy",
        "mask": "mask.png",
    }
    assert said["check"]["region"]["share"] == pytest.approx((mask == 255).mean())
    assert said["sampling"]["steps"] == 2 and said["seed"] == "0"
    assert any("border is not exact" in line for line in said["limitations"])
    (tmp_path / "map.png").write_bytes(b"another")
    assert dict(verify(tmp_path / "image.png").evidence)["map.png"] == "changed"


def test_clear_prompts_stay_dark(command, tmp_path):
    code, out, _ = command(
        "-m", "model", "-c", "none.calibration.json", "-p", "a", "-o", tmp_path, "--json", "--seed", 2**64 - 1, *SMALL
    )
    told = json.loads(out)
    assert (code, told["share"], told["seed"], told["alpha"]) == (0, 0, str(2**64 - 1), 0.01)
    assert told["report"]["verdict"] == "clear" and told["schema"] == "cryptomnesia/location/1"
    assert not np.asarray(Image.open(told["files"]["mask"])).any()
    assert verify(told["files"]["image"]).matches


def test_without_a_calibration_there_is_no_mask_and_the_reason_is_told(command, tmp_path):
    (tmp_path / "mask.png").write_bytes(b"of an earlier image")
    code, out, err = command("-m", "model", "-p", "a", "-o", tmp_path, *SMALL)
    assert code == 5 and "no mask: model has no calibration: run `cryptomnesia calibrate" in out
    assert err.count("\n") == 1 and "probes of the map and its outline will cost" in err
    assert not (tmp_path / "mask.png").exists() and (tmp_path / "map.png").exists()
    said = read_statement(tmp_path / "image.png.cryptomnesia.json")["predicate"]
    assert said["check"]["region"]["share"] is None


def test_bad_input_costs_one_line(command, tmp_path):
    usual = ("-m", "model", "-o", tmp_path, *SMALL)
    assert "empty prompt" in one_line(command("-p", "  ", *usual))
    assert "--prompt" in one_line(command("-o", tmp_path))
    assert "--out" in one_line(command("-p", "a"))
    assert "--guidance" in one_line(command("-p", "a", *usual, "--guidance", "nan"))
    assert "--steps" in one_line(command("-p", "a", "-o", tmp_path, "--steps", 0))
    assert "--probes" in one_line(command("-p", "a", "-o", tmp_path, "--probes", 0))
    assert "multiple" in one_line(command("-m", "model", "-p", "a", "-o", tmp_path, "--height", 17))
    assert "nowhere" in one_line(command("-m", "nowhere", "-p", "a", "-o", tmp_path))
    assert "another latent size" in one_line(
        command("-m", "model", "-c", "all.calibration.json", "-p", "a", "-o", tmp_path, "--height", 32)
    )
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "in the way" in one_line(command("-p", "a", "-o", file))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
