"""Which calibration a check uses, and what it says when there is none that fits."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cryptomnesia.demo import demo_calibration

from .graphs import ENDING, calibrations, complaint, demo, links, ours, ran, report_of, with_check
from .harness import Comfy
from .results import node

KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def folder(comfy: Comfy) -> Iterator[Path]:
    """ComfyUI's folder of calibrations, empty before and after."""
    place = calibrations(comfy)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place)


def store(folder: Path, name: str, age: int = 0, **changes) -> str:
    path = folder / f"{name}{ENDING}"
    replace(demo_calibration(), **changes).save(path)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path.name


def test_a_file_is_chosen_by_name(comfy: Comfy, folder: Path):
    unlike = {"scores": [1e9] * demo_calibration().n, "alpha": 0.25}  # as if benign prompts scored higher
    name = store(folder, "mine", **unlike)
    report = report_of(comfy, with_check(comfy, demo(), calibration=name))
    assert report["alpha"] == 0.25 and report["verdict"] == "clear"
    assert report["calibration_id"] == replace(demo_calibration(), **unlike).identity


def test_a_file_in_a_subfolder_can_be_chosen(comfy: Comfy, folder: Path):
    (folder / "mine").mkdir()
    store(folder / "mine", "deep", alpha=0.25)
    assert report_of(comfy, with_check(comfy, demo(), calibration=f"mine/deep{ENDING}"))["alpha"] == 0.25


def test_none_means_none(comfy: Comfy, folder: Path):
    store(folder, "mine")
    report = report_of(comfy, with_check(comfy, demo(), calibration="none"))
    assert report["verdict"] == "uncalibrated" and "no calibration was chosen" in report["reason"]
    assert report["score"] == pytest.approx(report["iso"]) and report["calibration_id"] is None


def test_automatic_finds_the_newest_that_fits(comfy: Comfy, folder: Path):
    store(folder, "old", age=100, alpha=0.3)
    store(folder, "older", age=200, alpha=0.4)
    store(folder, "foreign", fingerprint="0" * 64, alpha=0.5)
    (folder / f"broken{ENDING}").write_text("{")
    (folder / "notes.json").write_text("{}")
    assert report_of(comfy, with_check(comfy, demo()))["alpha"] == 0.3


def test_automatic_falls_back_on_the_models_own(comfy: Comfy, folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / f"broken{ENDING}").write_text("{}")
    comfy.fresh()
    report = report_of(comfy, with_check(comfy, demo()))
    assert report["verdict"] == "memorized" and report["calibration_id"] == demo_calibration().identity
    assert any("broken" in line and "calibrate again" in line for line in caplog.messages)


def test_a_file_for_another_model_is_refused(comfy: Comfy, folder: Path):
    name = store(folder, "foreign", fingerprint="0" * 64)
    line = complaint(comfy, with_check(comfy, demo(), calibration=name))
    assert "another model: of the same family, but with other weights" in line
    assert "(000000000000, not 105dd0be8be4)" in line and "the node Calibrate Model" in line


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "cryptomnesia/calibration/1"}', "\0\xff"])
def test_a_malformed_file_that_was_chosen_is_an_error(comfy: Comfy, folder: Path, content: str):
    (folder / f"broken{ENDING}").write_text(content, "latin-1")
    line = complaint(comfy, with_check(comfy, demo(), calibration=f"broken{ENDING}"))
    assert "broken" in line and "calibrate again" in line


@pytest.mark.parametrize("name", ["gone.calibration.json", "../../secret.calibration.json", "notes.json", ""])
def test_only_files_of_the_folder_can_be_chosen(comfy: Comfy, folder: Path, name: str):
    store(folder, "mine")
    (folder / "notes.json").write_text("{}")
    result = comfy.run(with_check(comfy, demo(), calibration=name))
    assert set(result.invalid) == {"check"} and "calibration" in result.error


@pytest.mark.parametrize(("change", "words"), [("size", "latent size"), ("draws", "number of draws")])
def test_other_settings_are_told(comfy: Comfy, folder: Path, change: str, words: str):
    prompt = with_check(comfy, demo(size=128)) if change == "size" else with_check(comfy, demo(), draws=2)
    report = report_of(comfy, prompt)
    assert report["verdict"] == "uncalibrated" and report["score"] > 0
    assert words in report["reason"] and "the node Calibrate Model" in report["reason"]
    prompt["check"]["inputs"]["calibration"] = store(folder, "mine")
    assert words in complaint(comfy, prompt)


def test_a_new_file_makes_the_check_run_again(comfy: Comfy, folder: Path):
    def again():
        return ran(comfy, with_check(comfy, demo()))  # a new prompt each time, since ComfyUI writes into it

    comfy.fresh()
    assert "check" not in again().cached and "check" in again().cached
    store(folder, "mine", alpha=0.3)
    result = again()
    assert "check" not in result.cached and result.outputs["check"][0]["alpha"] == 0.3
    assert "check" in again().cached


def test_the_folder_may_be_missing(comfy: Comfy, folder: Path):
    folder.rmdir()
    try:
        assert report_of(comfy, with_check(comfy, demo()))["verdict"] == "memorized"
    finally:
        folder.mkdir()


def lora(comfy: Comfy, strength: float) -> dict:
    generator = torch.Generator().manual_seed(3)
    up, down = torch.randn(96, 4, generator=generator), torch.randn(4, 128, generator=generator) / 10
    place = Path(comfy.folder_paths.get_folder_paths("loras")[0]) / "style.safetensors"
    place.parent.mkdir(exist_ok=True)
    save_file({f"{KEY}.lora_up.weight": up, f"{KEY}.lora_down.weight": down}, place)
    return node("LoraLoaderModelOnly", model=["load", 0], lora_name="style.safetensors", strength_model=strength)


CHANGES = {
    "sampling": node("ModelSamplingDiscrete", model=["load", 0], sampling="v_prediction", zsnr=False),
    "schedule": node("ModelSamplingDiscrete", model=["load", 0], sampling="eps", zsnr=True),
    "freeu": node("FreeU_V2", model=["load", 0], b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "weak freeu": node("FreeU_V2", model=["load", 0], b1=1.1, b2=1.4, s1=0.9, s2=0.2),
    "rope": node("ScaleROPE", model=["load", 0], scale_x=2.0, shift_x=0, scale_y=1, shift_y=0, scale_t=1, shift_t=0),
    "wrapper": node("TestSlow", model=["load", 0], seconds=0.0),
    "lora": None,
    "weak lora": None,
}


def test_a_changed_model_is_another_model(comfy: Comfy):
    own = report_of(comfy, with_check(comfy, demo()))
    prints = {own["fingerprint"]}
    for name, change in CHANGES.items():
        change = change or lora(comfy, 1.0 if name == "lora" else 0.5)
        report = report_of(comfy, with_check(comfy, demo() | {"changed": change}, model=["changed", 0]))
        assert report["verdict"] == "uncalibrated" and report["reason"].startswith("no calibration for this model"), (
            name
        )
        prints.add(report["fingerprint"])
    assert len(prints) == len(CHANGES) + 1
    assert report_of(comfy, with_check(comfy, demo()))["fingerprint"] == own["fingerprint"]


def test_a_lora_acts_on_the_score(comfy: Comfy):
    scores = []
    for strength in (0.0, 1.0):
        prompt = demo() | {"lora": lora(comfy, strength)}
        scores.append(report_of(comfy, with_check(comfy, prompt, model=["lora", 0], calibration="none"))["score"])
    plain = report_of(comfy, with_check(comfy, demo(), calibration="none"))["score"]
    assert scores[0] == plain and abs(scores[1] - plain) > 0.01 * plain


def test_another_reading_of_the_text_is_another_model(comfy: Comfy):
    prompt = demo() | {"skip": node("CLIPSetLastLayer", clip=["load", 1], stop_at_clip_layer=-2)}
    prompt["text"]["inputs"]["clip"] = ["skip", 0]
    report = report_of(comfy, with_check(comfy, prompt, clip=["skip", 0]))
    assert report["verdict"] == "uncalibrated"


def test_the_early_checkpoint_is_another_model(comfy: Comfy):
    prompt = demo() | {"load": node("CryptomnesiaLoadDemoModel", checkpoint="early")}
    assert links(prompt)["model"] == ["load", 0]
    assert report_of(comfy, with_check(comfy, prompt))["verdict"] == "uncalibrated"


@pytest.mark.parametrize("name", ["MitigateConditioning", "RewritePrompt"])
def test_nodes_that_need_one_pass_on_what_they_got_and_say_why(comfy: Comfy, name: str):
    prompt = demo(size=128)
    inputs = {key: link for key, link in links(prompt).items() if key != "positive" or name == "MitigateConditioning"}
    words = {"text": "old clock"} if name == "RewritePrompt" else {}
    prompt |= {"mend": ours(comfy, name, **inputs, **words), "kept": node("TestKeep", value=["mend", 0])}
    outputs = ran(comfy, prompt).outputs
    report = next(value for value in outputs["mend"] if isinstance(value, dict))
    assert report["verdict"] == "uncalibrated" and report["score"] is not None and report["mitigation"] is None
    assert "latent size" in report["reason"] and "needs a calibration" in report["note"]
    passed = outputs["mend"][0]
    assert passed == "old clock" if name == "RewritePrompt" else passed is outputs["text"][0]
    prompt["latent"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    prompt["load"] = node("CryptomnesiaLoadDemoModel", checkpoint="early")
    report = next(value for value in ran(comfy, prompt).outputs["mend"] if isinstance(value, dict))
    assert "Calibrate Model" in report["reason"]
