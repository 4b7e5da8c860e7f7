"""Calibrate Model: the file it makes, and that it can be cancelled at any time."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.calibration import Calibration

from . import models
from .graphs import ENDING, calibrations, complaint, demo, given, links, ours, ran, report_of, tiny, with_check
from .harness import Comfy
from .results import Result, node

PROMPTS = [f"a {color} {thing}" for color in "red blue green grey pink".split() for thing in "abcdefghijklmnopqrst"]
LINES = "\n".join(PROMPTS)
CHUNK, CHUNKS = 16, 7


@pytest.fixture(autouse=True)
def folder(comfy: Comfy) -> Iterator[Path]:
    place = calibrations(comfy)
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def calibrating(comfy: Comfy, prompt: dict[str, Any], **changes) -> dict[str, Any]:
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    own = {"name": "tiny", "draws": 1, "prompts": LINES}
    return prompt | {"made": ours(comfy, "CalibrateModel", **inputs | own | changes)}


class Counter:
    """Counts the network's calls, and cancels the run during one of them. It stands outside of the model, whose
    patches are part of its identity."""

    def __init__(self, comfy: Comfy, stop: int = 0):
        self.comfy, self.stop, self.calls = comfy, stop, 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        from comfy.model_base import BaseModel

        own = BaseModel.apply_model

        def apply_model(*arguments: Any, **options: Any) -> torch.Tensor:
            self.calls += 1
            if self.calls == self.stop:
                self.comfy.interrupt()
            return own(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BaseModel, "apply_model", apply_model)
            yield


def counted(comfy: Comfy, counter: Counter, **changes) -> Result:
    comfy.fresh()
    with counter.watching():
        return comfy.run(calibrating(comfy, tiny(comfy, "eps"), **changes))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize("kind", ["eps", "sd3"])
def test_checks_use_the_file_from_then_on(comfy: Comfy, folder: Path, kind: str):
    prompt = tiny(comfy, kind)
    before = report_of(comfy, with_check(comfy, prompt, draws=1))
    result = ran(comfy, calibrating(comfy, prompt))
    name, text = result.outputs["made"]
    assert files(folder) == [name] == [f"tiny{ENDING}"]
    assert text.startswith("100 benign prompts; scores above") and "false-alarm rate 0.01" in text
    assert result.ui["made"]["text"] == [text] or result.ui["made"]["text"] == (text,)
    after = report_of(comfy, with_check(comfy, prompt, draws=1))
    assert before["verdict"] == "uncalibrated" and after["verdict"] in ("clear", "memorized")
    made = Calibration.load(folder / name)
    assert after["calibration_id"] == made.identity and made.fingerprint == after["fingerprint"]
    assert (made.n, made.draws, made.seed, made.latent_shape[1:]) == (100, 1, 0, (8, 8))


def test_progress_is_shown(comfy: Comfy):
    comfy.fresh()
    events = ran(comfy, calibrating(comfy, tiny(comfy, "eps"))).named("progress")
    assert {event["node"] for event in events} == {"made"} and {event["max"] for event in events} == {100}
    values = [event["value"] for event in events]
    assert values == sorted(values) and values[-1] == 100


@pytest.fixture(scope="module")
def whole(comfy: Comfy) -> bytes:
    """The file of a run that nobody cancelled."""
    counter, place = Counter(comfy), calibrations(comfy) / f"whole{ENDING}"
    assert counted(comfy, counter, name="whole").ok and counter.calls == CHUNKS
    return place.read_bytes()


@pytest.mark.parametrize("stop", [2, 6])
def test_it_goes_on_where_it_was_cancelled(comfy: Comfy, folder: Path, whole: bytes, stop: int):
    shutil.rmtree(folder, ignore_errors=True)
    first, second = Counter(comfy, stop), Counter(comfy)
    result = counted(comfy, first)
    assert result.interrupted and first.calls == stop
    assert files(folder) == [f"tiny{ENDING}.partial"]
    result = counted(comfy, second)
    kept = stop - 1  # the call in progress is lost
    assert result.ok and kept + second.calls == CHUNKS
    assert result.named("progress")[0]["value"] == kept * CHUNK
    assert files(folder) == [f"tiny{ENDING}"] and (folder / f"tiny{ENDING}").read_bytes() == whole


@pytest.mark.parametrize("changes", [{"check_seed": 1}, {"draws": 2}, {"prompts": LINES.replace("red", "dark")}])
def test_it_starts_anew_where_anything_differs(comfy: Comfy, changes: dict):
    last = Counter(comfy)
    assert counted(comfy, Counter(comfy, stop=3)).interrupted
    assert counted(comfy, last, **changes).ok and last.calls == CHUNKS


def test_a_finished_file_is_not_made_again(comfy: Comfy, folder: Path):
    """Unless prompts, settings or the file differ."""
    place, counter = folder / f"tiny{ENDING}", Counter(comfy)
    assert counted(comfy, Counter(comfy)).ok
    before = place.read_bytes()
    again = counted(comfy, counter)
    assert again.ok and counter.calls == 0 and place.read_bytes() == before
    assert again.outputs["made"][1].startswith("100 benign prompts")
    assert counted(comfy, counter, alpha=0.05).ok and counter.calls == 0  # only the promise is another
    assert place.read_bytes() != before and Calibration.load(place).alpha == 0.05
    for damage in (place.unlink, lambda: place.write_text("{")):
        damage()
        counter = Counter(comfy)
        assert counted(comfy, counter).ok and counter.calls == CHUNKS
    for changes in ({"prompts": LINES.replace("red", "dark")}, {"check_seed": 1}, {"draws": 2}):
        counter = Counter(comfy)
        assert counted(comfy, counter, **changes).ok and counter.calls == CHUNKS


def test_a_damaged_partial_file_is_no_harm(comfy: Comfy, folder: Path, whole: bytes):
    folder.mkdir(exist_ok=True)
    (folder / f"tiny{ENDING}.partial").write_text('{"rows": [[1')
    assert counted(comfy, Counter(comfy)).ok
    assert (folder / f"tiny{ENDING}").read_bytes() == whole


def test_the_shipped_prompts_are_the_default(comfy: Comfy):
    result = counted(comfy, Counter(comfy, stop=1), prompts=" \n")
    assert result.interrupted and {event["max"] for event in result.named("progress")} == {486}


NAMES = ["../x", "a/b", "", "  ", ".hidden", "..", "a\\b", "C:x", "a\0b", ENDING, "/tmp/x", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_inside_the_folder(comfy: Comfy, folder: Path, name: str):
    before = files(comfy.base)
    line = complaint(comfy, calibrating(comfy, tiny(comfy, "eps"), name=name))
    assert "is no file name" in line and set(files(comfy.base)) - set(before) <= {"models/cryptomnesia"}


def test_a_name_may_come_with_its_ending(comfy: Comfy, folder: Path):
    ran(comfy, calibrating(comfy, tiny(comfy, "eps"), name=f" my model{ENDING} "))
    assert files(folder) == [f"my model{ENDING}"]


def wrong(prompts: str = LINES, alpha: float = 0.01) -> dict[str, Any]:
    return {"prompts": prompts, "alpha": alpha}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (wrong("\n".join(PROMPTS[:99])), "99 benign prompts are too few"),
        (wrong("\n".join(PROMPTS[:99] * 2)), "99 benign prompts are too few"),
        (wrong("\n".join([*PROMPTS[:99], "", "  ", "# a comment"])), "99 benign prompts are too few"),
        (wrong(alpha=0.001), "give at least 999"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused_before_any_work(comfy: Comfy, folder: Path, changes, words: str):
    counter = Counter(comfy)
    result = counted(comfy, counter, **changes)
    assert words in result.error and "\n" not in result.error
    assert counter.calls == 0 and files(folder) == []


def test_where_there_is_no_score_there_is_no_calibration(comfy: Comfy, folder: Path):
    unknown = tiny(comfy, "eps") | {"x0": node("ModelSamplingDiscrete", model=["load", 0], sampling="x0", zsnr=False)}
    assert "X0" in complaint(comfy, calibrating(comfy, unknown, model=["x0", 0]))
    image = tiny(comfy, "eps") | {"latent": given(comfy, {"samples": torch.ones(1, 4, 8, 8)})}
    assert "starts from an image" in complaint(comfy, calibrating(comfy, image))
    assert files(folder) == []


def test_a_foreign_clip_is_told(comfy: Comfy, folder: Path):
    prompt = demo() | {"other": node("TestModel", kind="eps", weights=0)}
    line = complaint(comfy, calibrating(comfy, prompt, clip=["other", 1]))
    assert "32 wide" in line and "reads 128" in line


def test_a_lora_wants_a_calibration_of_its_own(comfy: Comfy, folder: Path):
    prompt = tiny(comfy, "eps")
    ran(comfy, calibrating(comfy, prompt))
    slow = prompt | {"slow": node("TestSlow", model=["load", 0], seconds=0.0)}
    report = report_of(comfy, with_check(comfy, slow, draws=1, model=["slow", 0]))
    assert report["verdict"] == "uncalibrated"
    ran(comfy, calibrating(comfy, slow, model=["slow", 0], name="slow"))
    report = report_of(comfy, with_check(comfy, slow, draws=1, model=["slow", 0]))
    assert report["calibration_id"] == Calibration.load(folder / f"slow{ENDING}").identity


def test_the_file_is_what_the_library_makes(comfy: Comfy, folder: Path):
    """On the built-in model, where diffusers computes the same."""
    from cryptomnesia import load_demo
    from cryptomnesia.adapters import to_denoiser
    from cryptomnesia.calibration import calibrate

    ran(comfy, calibrating(comfy, demo(), name="demo", by_words=True))
    denoiser = to_denoiser(load_demo())
    expected = calibrate(denoiser, denoiser.encode(PROMPTS), draws=1, by_words=True)
    made = Calibration.load(folder / f"demo{ENDING}")
    assert made.scores == pytest.approx(expected.scores, abs=1e-3)
    assert made.combination.reference == pytest.approx(expected.combination.reference, rel=1e-3)
    assert made.expectation.centre == pytest.approx(expected.expectation.centre, abs=1e-3)
    assert made.expectation.direction == pytest.approx(expected.expectation.direction, abs=1e-3)
    for name in ("fingerprint", "family", "dtype", "latent_shape", "draws", "alpha"):
        assert getattr(made, name) == getattr(expected, name)
    assert json.loads((folder / f"demo{ENDING}").read_text())["seed"] == "0"


def test_a_patch_that_cannot_be_compared_is_refused_before_any_work(comfy: Comfy, folder: Path):
    """Its file would fit nothing ever."""
    model, generator = models.model("eps"), torch.Generator()
    model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v) if generator else None)
    prompt = tiny(comfy, "eps") | {"patched": given(comfy, model)}
    line = complaint(comfy, calibrating(comfy, prompt, model=["patched", 0]))
    assert "attn1_patch (Generator)" in line and files(folder) == []
    report = report_of(comfy, with_check(comfy, prompt, model=["patched", 0]))
    assert report["verdict"] == "uncalibrated" and "attn1_patch (Generator)" in report["reason"] and report["score"]


def test_another_models_file_is_not_replaced(comfy: Comfy, folder: Path):
    ran(comfy, calibrating(comfy, tiny(comfy, "eps")))
    before = (folder / f"tiny{ENDING}").read_bytes()
    assert "belongs to another model" in complaint(comfy, calibrating(comfy, tiny(comfy, "v")))
    assert (folder / f"tiny{ENDING}").read_bytes() == before
    ran(comfy, calibrating(comfy, tiny(comfy, "eps"), draws=2))  # its own may be made anew
    assert Calibration.load(folder / f"tiny{ENDING}").draws == 2
