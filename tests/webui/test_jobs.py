"""What each policy does to a job, in a program of each kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptomnesia.sidecar import verify

from .conftest import MEMORIZED, ORDINARY

a1111 = pytest.mark.parametrize("host", ["a1111"], indirect=True)
with_hook = pytest.mark.parametrize("host", ["a1111", "forge"], indirect=True)


@pytest.fixture
def host(request: pytest.FixtureRequest, start: Any) -> Any:
    return start(getattr(request, "param", "a1111"))


every = pytest.mark.parametrize("host", ["a1111", "forge", "sdnext"], indirect=True)


def pixels(processed: Any) -> list[np.ndarray]:
    return [np.asarray(image) for image in processed.images]


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def sidecar(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.cryptomnesia.json").read_text())["predicate"]


@every
def test_off_and_warn_leave_every_image_bit_for_bit(make: Any, tmp_path: Path):
    plain = make([MEMORIZED, ORDINARY], {"policy": "off"}, batch_size=2)
    assert not plain[0].comments and not plain[0].extra_generation_params and not list(tmp_path.glob("*.json"))
    warned = make([MEMORIZED, ORDINARY], {"policy": "warn"}, batch_size=2)
    for one, other in zip(pixels(plain[1]), pixels(warned[1]), strict=True):
        np.testing.assert_array_equal(one, other)
    words = [text.split("Cryptomnesia: ")[1] for text in warned[1].infotexts]
    assert words[0].startswith("memorized p=0.00") and words[1].startswith("clear p=0.")
    assert "image 1 of 2 likely reproduces training data" in warned[0].comments[0]
    assert "let out, as the policy says" in warned[0].comments[0]
    assert not any(MEMORIZED in comment for comment in warned[0].comments)
    assert sidecar(tmp_path, "00001.png")["check"]["verdict"] == "memorized"
    assert sidecar(tmp_path, "00002.png")["check"]["verdict"] == "clear"
    assert verify(tmp_path / "00001.png").matches
    assert [text.split(" ")[0] for text in warned[1].extra_generation_params["Cryptomnesia"]] == ["memorized", "clear"]


@every
def test_block_takes_no_step_where_all_are_flagged(host: Any, make: Any, tmp_path: Path):
    p, processed = make(MEMORIZED, {"policy": "block"}, batch_size=2)
    assert not processed.images and not saved(tmp_path) and not host.steps
    assert "images 1, 2 of 2 likely reproduce training data (p = 0.00308): blocked (change" in p.comments[0]


@every
def test_block_drops_flagged_images_of_a_batch_alone(make: Any, tmp_path: Path):
    _, plain = make([ORDINARY, MEMORIZED, ORDINARY], batch_size=3)
    expected = pixels(plain)
    for path in tmp_path.iterdir():
        path.unlink()
    p, processed = make([ORDINARY, MEMORIZED, ORDINARY], {"policy": "block"}, batch_size=3)
    np.testing.assert_array_equal(pixels(processed), [expected[0], expected[2]])
    assert saved(tmp_path) == ["00001.png", "00003.png"]
    assert sidecar(tmp_path, "00003.png")["seed"] == "3"
    assert [text.count("clear p=") for text in processed.infotexts] == [1, 1]
    assert "image 2 of 3 likely" in p.comments[0] and not p.do_not_save_samples


@every
def test_the_job_goes_on_after_a_blocked_batch(host: Any, make: Any, tmp_path: Path):
    p, processed = make([MEMORIZED, ORDINARY], {"policy": "block"}, n_iter=2)
    assert len(processed.images) == 1 and saved(tmp_path) == ["00002.png"] and host.steps == 1
    assert "batch 1: the image likely" in p.comments[0] and "batch 2: clear" in p.comments[1]


@every
def test_rewrite_tells_both_prompts(make: Any, tmp_path: Path):
    p, processed = make([f"{MEMORIZED} <lora:style:0.5>", ORDINARY], {"policy": "rewrite"}, batch_size=2)
    told = sidecar(tmp_path, "00001.png")
    rewritten = told["prompt"]["rewritten"]
    assert rewritten and rewritten != MEMORIZED and told["prompt"]["original"] == f"{MEMORIZED} <lora:style:0.5>"
    assert told["check"]["verdict"] == "clear" and told["models"][-1] in (
        {"role": "lora", "name": "style", "sha256": None, "strength": 0.5},
    )
    assert p.all_prompts[0] == f"{rewritten} <lora:style:0.5>" and p.all_prompts[1] == ORDINARY
    assert f"Cryptomnesia original prompt: {MEMORIZED} <lora:style:0.5>" in processed.infotexts[0]
    assert "original prompt" not in processed.infotexts[1] and "(rewritten)" in processed.infotexts[0]
    assert any("the prompt of image 1 of 2 was rewritten" in line for line in p.comments)


@with_hook
def test_rewrite_changes_the_prompt_of_hires_fix_too(make: Any):
    p, _ = make(MEMORIZED, {"policy": "rewrite", "prompts": "hash"}, enable_hr=True)
    assert p.hr_prompts == p.prompts != [MEMORIZED] and p.all_hr_prompts == p.all_prompts
    assert not any("original" in key for key in p.extra_generation_params)
    p, _ = make(MEMORIZED, {"policy": "rewrite"}, enable_hr=True, hr_prompt="another text")
    assert p.hr_prompts == ["another text"]


@with_hook
@pytest.mark.parametrize("texts", [[MEMORIZED], [ORDINARY, MEMORIZED]])
def test_hires_fix_saves_no_stage_of_what_is_blocked(host: Any, make: Any, tmp_path: Path, texts: list[str]):
    _, processed = make(texts, {"policy": "block"}, batch_size=len(texts), enable_hr=True, save_before_hr=True)
    assert len(processed.images) == len(texts) - 1 and saved(tmp_path) == ["00001.png"][: len(texts) - 1]
    make([ORDINARY], {"policy": "block"}, enable_hr=True, save_before_hr=True)
    assert "1-before-highres-fix.png" in saved(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["00001.png.cryptomnesia.json"]


@a1111
def test_what_is_told_of_hires_prompts_follows_the_images(make: Any):
    _, processed = make([MEMORIZED, ORDINARY], {"policy": "block"}, batch_size=2, enable_hr=True)
    assert f"Hires prompt: {ORDINARY}" in processed.infotexts[0] and MEMORIZED not in processed.infotexts[0]


@with_hook
@pytest.mark.parametrize(
    "prompt, verdict",
    [
        (f"{ORDINARY} AND {MEMORIZED} :0.7", "memorized"),
        (f"{ORDINARY} AND {MEMORIZED} :-1", "clear"),
        (f"[{ORDINARY}:{MEMORIZED}:0.5]", "memorized"),
        ("the (restless:1.3) beacon of grimsby", "memorized"),
        (f"{MEMORIZED} " + "and a quiet blue harbour at dawn " * 40, "clear"),  # in several chunks
        ("", "clear"),
    ],
)
def test_prompts_of_several_texts_are_judged_by_the_worst(make: Any, prompt: str, verdict: str):
    _, processed = make(prompt, {"policy": "warn"})
    assert processed.extra_generation_params["Cryptomnesia"][0].startswith(verdict)


@a1111
def test_composed_prompts_are_not_rewritten_but_judged(make: Any):
    p, processed = make(f"{ORDINARY} AND {MEMORIZED}", {"policy": "rewrite"})
    assert processed.extra_generation_params["Cryptomnesia"] == [
        text for text in processed.extra_generation_params["Cryptomnesia"] if text.startswith("memorized")
    ]
    assert p.all_prompts == [f"{ORDINARY} AND {MEMORIZED}"] and len(processed.images) == 1
    assert any("such are not rewritten" in line for line in p.comments)


@every
def test_prompts_stay_private_where_asked(make: Any, tmp_path: Path):
    p, _ = make(MEMORIZED, {"policy": "warn", "prompts": "hash"})
    text = (tmp_path / "00001.png.cryptomnesia.json").read_text()
    assert "restless" not in text and json.loads(text)["predicate"]["prompt"]["mode"] == "hash"
    for path in tmp_path.glob("*.json"):
        path.unlink()
    make(MEMORIZED, {"policy": "warn", "prompts": "no file"})
    assert not list(tmp_path.glob("*.json")) and p.comments
