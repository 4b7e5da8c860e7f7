"""Calibrations are kept for the user, and found again for the model as it is."""

import json
import stat
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from cryptomnesia import Guard, calibration_store, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.calibration_run import CalibrationRun
from cryptomnesia.calibration_store import find, folder, keep, kept, make, path_for
from cryptomnesia.errors import CalibrationError, InputError, NotApplicable
from cryptomnesia.report import MemorizationReport

from .helpers.guarded import BENIGN, SHAPE, attached, flags_all, flags_none
from .helpers.pipelines import build
from .helpers.toy import SHAPE as TOY
from .helpers.toy import linear, prompts, without_guidance

SMALL: dict[str, Any] = {"height": 16, "width": 16}


@pytest.fixture(scope="module")
def pipe():
    return build("sd1")


@pytest.fixture(scope="module")
def toy():
    return calibrate(linear(), prompts(120))


# --- where ---


@pytest.mark.parametrize(
    ("platform", "variables", "wanted"),
    [
        ("linux", {"CRYPTOMNESIA_HOME": "/a/b"}, "/a/b/calibrations"),
        ("linux", {"XDG_CACHE_HOME": "/a"}, "/a/cryptomnesia/calibrations"),
        ("linux", {"XDG_CACHE_HOME": "a"}, "/home/me/.cache/cryptomnesia/calibrations"),
        ("linux", {}, "/home/me/.cache/cryptomnesia/calibrations"),
        ("darwin", {"XDG_CACHE_HOME": "/a"}, "/home/me/Library/Caches/cryptomnesia/calibrations"),
        ("win32", {"LOCALAPPDATA": "/a"}, "/a/cryptomnesia/calibrations"),
        ("win32", {}, "/home/me/AppData/Local/cryptomnesia/calibrations"),
    ],
)
def test_the_folder_of_each_system(monkeypatch, platform, variables, wanted):
    for name in ("CRYPTOMNESIA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert folder().as_posix() == wanted


def test_nothing_is_written_unless_one_is_kept_and_then_for_its_owner_alone(toy):
    assert find(linear(), TOY) == (None, None)
    Guard(linear(), "auto")
    assert not folder().parent.exists()
    path = keep(toy)
    assert path.parent == folder() and stat.S_IMODE(folder().stat().st_mode) == 0o700
    assert Calibration.load(path) == toy
    assert find(linear(), TOY) == (toy, None)


def test_a_place_that_cannot_be_written_is_said_in_one_line(monkeypatch, tmp_path, toy):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(tmp_path / "file"))
    with pytest.raises(CalibrationError, match="set CRYPTOMNESIA_HOME to a folder of yours"):
        keep(toy)


# --- which ---


def test_the_one_for_the_size_the_draws_and_the_model_that_are_asked_for(toy):
    other_size = replace(toy, latent_shape=(3, 8, 8))
    one_draw = replace(toy, draws=1)
    other_model = replace(toy, fingerprint="another")
    for one in (other_size, one_draw, other_model):
        keep(one)
    denoiser = linear()
    assert find(denoiser, (3, 8, 8)) == (other_size, None)
    assert find(denoiser, TOY) == (one_draw, None)
    assert find(denoiser, TOY, 1) == (one_draw, None)
    found, why = find(denoiser, TOY, 4)
    assert found is None and "another number of draws: 1, not 4" in str(why)
    keep(toy)
    assert find(denoiser, TOY, 4) == (toy, None) and find(denoiser, TOY, 1) == (one_draw, None)
    assert find(linear(seed=1), TOY) == (None, None)  # another model's says nothing
    found, why = find(denoiser, (3, 2, 2))
    assert found is None and "another latent size" in str(why)
    half = linear(fingerprint="half")
    half.dtype = torch.float16
    found, why = find(half, TOY)
    assert found is None and "another dtype: float32, not float16" in str(why)


def test_the_newest_of_several_is_taken_and_one_of_the_same_replaced(toy):
    import os

    old, new = keep(replace(toy, draws=1)), keep(replace(toy, draws=2))
    os.utime(old, (2000, 2000))
    os.utime(new, (3000, 3000))
    assert find(linear(), TOY)[0].draws == 2
    os.utime(old, (4000, 4000))
    assert find(linear(), TOY)[0].draws == 1
    assert keep(replace(toy, draws=1, alpha=0.05)) == old
    assert len(list(folder().iterdir())) == 2


def test_broken_files_are_left_out_with_a_warning(toy):
    path = keep(toy)
    for name, content in {
        "a": "{",
        "b": "[" * 100_000,
        "c": json.dumps(json.loads(path.read_text()) | {"draws": True}),
        "d\x1b[2J\n✓": "{}",
    }.items():
        (folder() / f"{name}.calibration.json").write_text(content)
    (folder() / "folder.calibration.json").mkdir()
    (folder() / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning, match="was left out") as caught:
        assert find(linear(seed=1), TOY) == (None, None)
    assert len(caught) == 5
    assert not any(set(str(warning.message)) & set("\x1b\n") for warning in caught)
    with pytest.warns(UserWarning):
        assert find(linear(), TOY) == (toy, None)


def test_the_built_in_models_own_is_found_and_told_apart():
    guard = Guard(load_demo(), "auto")
    report = guard.check("the restless beacon of grimsby")
    assert report.verdict == "memorized" and report.draws == guard.calibration.draws
    report = guard.check("a cat", height=32, width=32)
    assert report.verdict == "uncalibrated" and "another latent size" in report.reason
    assert "--height 32 --width 32" in report.reason
    early = Guard(load_demo("early"), "auto").check("a cat")
    assert early.verdict == "uncalibrated" and "guard.calibrate()" in early.reason
    assert len(list(kept())) == 1


# --- making one ---


def test_a_guard_calibrates_the_pipeline_as_it_stands(pipe):
    guard, told = Guard(pipe), []
    assert guard.check("a cat", **SMALL).draws == 4
    made = guard.calibrate(BENIGN, draws=2, seed=3, alpha=0.05, **SMALL, progress=lambda *done: told.append(done))
    assert guard.calibration is made and (made.n, made.draws, made.alpha) == (100, 2, 0.05)
    assert told == [(min(16 * i, 100), 100) for i in range(1, 8)]
    assert [path.name for path in folder().iterdir()] == [path_for(made.binding).name]
    report = guard.check("a cat", **SMALL)
    assert report.draws == 2 and report.p_value is not None and report.calibration_id == made.identity
    assert Guard(pipe, "auto").check("a cat", **SMALL) == report
    reference = calibrate(guard.denoiser, guard.denoiser.encode(BENIGN), draws=2, seed=3, latent_shape=SHAPE)
    assert made.scores == pytest.approx(reference.scores, abs=1e-4)


def test_what_is_done_is_not_done_again(pipe, monkeypatch):
    guard = Guard(pipe, "auto")
    made = guard.calibrate(BENIGN, draws=1, **SMALL)
    monkeypatch.setattr(CalibrationRun, "steps", lambda run: pytest.fail("measured again"))
    assert guard.calibrate(BENIGN, draws=1, **SMALL) == made
    stricter = guard.calibrate(BENIGN, draws=1, alpha=0.02, **SMALL)
    assert stricter == replace(made, alpha=0.02) and find(guard.denoiser, SHAPE)[0] == stricter
    monkeypatch.undo()


@pytest.mark.parametrize("change", [{"seed": 1}, {"draws": 2}, {"prompts": [*BENIGN[1:], "new"]}])
def test_other_prompts_or_settings_are_measured(pipe, monkeypatch, change):
    make(Guard(pipe).denoiser, BENIGN, draws=1, seed=0, alpha=0.02, latent_shape=SHAPE)
    asked = {"prompts": BENIGN, "draws": 1, "seed": 0, "alpha": 0.02, "latent_shape": SHAPE} | change

    class Measured(Exception):
        pass

    def steps(run):
        raise Measured

    monkeypatch.setattr(CalibrationRun, "steps", steps)
    with pytest.raises(Measured):
        make(Guard(pipe).denoiser, **asked)


def test_it_goes_on_where_it_was_stopped(pipe):
    def stop(done, total):
        if done >= 32:
            raise KeyboardInterrupt

    guard, told = Guard(pipe), []
    with pytest.raises(KeyboardInterrupt):
        guard.calibrate(BENIGN, draws=1, **SMALL, progress=stop)
    assert guard.calibration is None and [path.suffix for path in folder().iterdir()] == [".partial"]
    guard.calibrate(BENIGN, draws=1, **SMALL, progress=lambda done, total: told.append(done))
    assert told[0] == 48 and [path.suffix for path in folder().iterdir()] == [".json"]


def test_a_lora_has_a_calibration_of_its_own(pipe):
    other = build("sd1")
    guard = Guard(other, "auto")
    guard.calibrate(BENIGN, draws=1, **SMALL)
    plain = guard.check("a cat", **SMALL)
    layer: Any = torch.nn.Linear(2, 2)  # as peft's, whose weights need not matter here
    layer.scaling, layer.active_adapters = {"watercolour": 1.0}, ["watercolour"]
    other.unet.add_module("lora", layer)
    assert guard.denoiser.adapter_names == ("watercolour",)
    assert guard.check("a cat", **SMALL).verdict == "uncalibrated"
    with pytest.raises(CalibrationError, match=r"other LoRAs .*loaded now: watercolour"):
        Guard(other, find(Guard(pipe).denoiser, SHAPE)[0]).check("a cat", **SMALL)
    made = guard.calibrate(BENIGN, draws=1, **SMALL)
    assert guard.check("a cat", **SMALL).calibration_id == made.identity
    del other.unet.lora
    assert guard.check("a cat", **SMALL) == plain


def test_half_precision_has_a_calibration_of_its_own(pipe):
    half = build("sd1").to(torch.bfloat16)
    keep(flags_none("sd1"))
    with pytest.raises(CalibrationError, match="another dtype: float32, not bfloat16"):
        Guard(half, flags_none("sd1")).check("a cat", **SMALL)
    guard = Guard(half, "auto")
    report = guard.check("a cat", **SMALL)
    assert report.verdict == "uncalibrated" and "another dtype" in report.reason
    assert guard.calibrate(BENIGN, draws=1, **SMALL).dtype == "torch.bfloat16"
    assert guard.check("a cat", **SMALL).p_value is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": BENIGN[:99]}, "at least 100"),
        ({"prompts": BENIGN[:50] * 2 + ["", "  "]}, "50 benign prompts are too few"),
        ({"prompts": "a cat"}, "a list of texts"),
        ({"prompts": [*BENIGN, 3]}, "a list of texts"),
        ({"draws": 0}, "at least one noise draw"),
        ({"draws": 1025}, "at most 1024"),
        ({"alpha": 0.0}, "false-alarm rate"),
        ({"alpha": 1e-300}, "cannot promise"),
        ({"height": 17}, "multiple"),
    ],
)
def test_bad_arguments_are_found_before_the_work(pipe, arguments, message):
    with pytest.raises(InputError, match=message):
        Guard(pipe).calibrate(**({"prompts": BENIGN, **SMALL} | arguments))
    assert not folder().exists() or not list(folder().iterdir())


def test_what_cannot_be_judged_cannot_be_calibrated():
    with pytest.raises(NotApplicable, match="starts from an image"):
        Guard(without_guidance(to_denoiser(build("sd1")))).calibrate(BENIGN)
    with pytest.raises(InputError, match="cannot read texts"):
        make(linear(), BENIGN, draws=1, seed=0, alpha=0.05, latent_shape=TOY)


@pytest.mark.parametrize("damage", ["{", '{"key": 1}', "[]", "rows", "nan", "deep"])
def test_a_broken_partial_file_is_started_anew(pipe, tmp_path, damage):
    partial = tmp_path / "a.partial"
    settings = {"draws": 1, "seed": 0, "alpha": 0.05, "partial": partial, "latent_shape": SHAPE}
    run = CalibrationRun(Guard(pipe).denoiser, BENIGN, **settings)
    next(run.steps())
    assert CalibrationRun(Guard(pipe).denoiser, BENIGN, **settings).done == 16
    document = json.loads(partial.read_text())
    damaged = {
        "rows": json.dumps(document | {"rows": [[1.0] * 7]}),
        "nan": partial.read_text().replace("]", ", NaN]", 1),
        "deep": "[" * 100_000,
    }
    partial.write_text(damaged.get(damage, damage))
    assert CalibrationRun(Guard(pipe).denoiser, BENIGN, **settings).done == 0


# --- while a pipeline samples ---


def test_an_attached_guard_finds_it_when_the_size_is_known(pipe):
    guard = Guard(pipe, "auto", policy="warn")
    (report,) = attached(guard).memorization
    assert report.verdict == "uncalibrated"
    keep(flags_all("sd1"))
    with pytest.warns(UserWarning):
        (report,) = attached(guard).memorization
    assert report.verdict == "memorized" and guard.calibration == flags_all("sd1")
    (report,) = attached(guard, height=32, width=32).memorization
    assert report.verdict == "uncalibrated" and "another latent size" in report.reason


def test_threads_that_ask_for_different_sizes_do_not_mix(pipe):
    guard = Guard(pipe, "auto")
    sizes = {16: SHAPE, 32: (4, 16, 16)}
    for shape in sizes.values():
        keep(replace(flags_none("sd1"), latent_shape=shape))
    found: list[tuple[int, MemorizationReport]] = []

    def ask(side: int) -> None:
        found.extend((side, guard.check("a cat", height=side, width=side)) for _ in range(5))

    threads = [threading.Thread(target=ask, args=(side,)) for side in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    identities = {side: find(guard.denoiser, shape)[0].identity for side, shape in sizes.items()}
    assert len(found) == 10
    assert all(report.calibration_id == identities[side] for side, report in found)


def test_mending_finds_it_too(pipe):
    guard = Guard(pipe, "auto", policy="rewrite")
    with pytest.raises(InputError, match=r"guard\.calibrate"):
        guard.mitigate("a cat", **SMALL)
    keep(flags_none("sd1"))
    assert guard.mitigate("a cat", **SMALL).mitigation.method == "rewrite"


def test_the_store_is_public():
    assert {"folder", "find", "keep", "kept"} <= set(dir(calibration_store))
