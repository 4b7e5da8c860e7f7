"""`cryptomnesia benchmark`, as its users meet it."""

import json
import shutil
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from cryptomnesia.benchmark import run as runs
from cryptomnesia.calibration import Calibration
from cryptomnesia.condition import mean_text
from cryptomnesia.expectation import Expectation
from cryptomnesia.images import png
from cryptomnesia.signals.memorization import memorization_score

from ..helpers import pipelines
from ..helpers.commands import caller, one_line
from ..helpers.markup import parsed

BENIGN = [f"{a}{b} {b}{c}" for a in "abcde" for b in "fghij" for c in "klmno"]  # 125, all different
MEMORIZED = [("a cat", "VM"), ("a dog", "VM"), ("Grüße aus Köln", "TM")]
OTHERS = ["a tree", "a house", "a CAT", "une maison à Paris"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with two models and lists."""
    place = tmp_path_factory.mktemp("benchmark")
    pipelines.build("sd1").save_pretrained(place / "model")
    pipelines.build("sd1", seed=1).save_pretrained(place / "other")
    rows = "".join(f"{i};{text};https://x/{i};{kind}\n" for i, (text, kind) in enumerate(MEMORIZED))
    (place / "memorized.csv").write_text(f";Caption;URL;type\n{rows}", encoding="utf-8")
    (place / "others.txt").write_text("\n".join(OTHERS), encoding="utf-8")
    (place / "more.txt").write_text("\n".join(f"a {word}" for word in "abcdefghijklmnopqrst"))
    (place / "benign.txt").write_text("\n".join(BENIGN))
    return place


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr of `cryptomnesia benchmark` on the usual lists."""
    monkeypatch.chdir(folder)
    lists = ("--memorized", "memorized.csv", "--negatives", "others.txt", "--negatives", "more.txt")
    return caller(capsys, "benchmark", "-m", "model", *lists, "--draws", 1)


ON = ("--calibrate-on", "benign.txt")


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """The folder of a finished benchmark."""
    from cryptomnesia.cli import run

    out = tmp_path_factory.mktemp("done") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lists = ["--memorized", "memorized.csv", "--negatives", "others.txt", "--negatives", "more.txt"]
        assert run(["benchmark", "-m", "model", *lists, "--draws", "1", *ON, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(done, tmp_path):
    """The same, to be worked on."""
    return shutil.copytree(done, tmp_path / "out")


def test_page_json_and_calibration(command, copied):
    code, text, err = command(*ON, "--out", copied, "--json")
    assert code == 0 and "nothing to measure" in err and "others.txt: 1 prompt is among the memorized ones" in err
    document = json.loads(text)
    assert document == json.loads((copied / "benchmark.json").read_text())
    assert document["schema"] == "cryptomnesia/benchmark/1" and document["generated"] is None
    groups = {group["name"]: group["prompts"] for group in document["groups"]}
    assert groups == {"VM": 2, "TM": 1, "all kinds": 3, "others": 3, "more": 20}
    assert len(document["pairs"]) == 6 and len(document["prompts"]) == 26
    assert document["cost"]["forward_rows"] == 2 * (26 + 2)  # both levels: each prompt, and nothing's twice
    page = parsed((copied / "index.html").read_text("utf-8"))
    assert "svg" in page.seen and "script" not in page.seen
    calibration = Calibration.load(copied / "benchmark.calibration.json")
    assert calibration.n == len(BENIGN) and calibration.draws == 1
    scores = torch.tensor([prompt["score"] for prompt in document["prompts"]], dtype=torch.float64)
    p_values = [prompt["p_value"] for prompt in document["prompts"]]
    assert p_values == calibration.p_of(scores).tolist()
    names = {file.name for file in copied.iterdir()}
    assert names == {".lock", "benchmark.calibration.json", "benchmark.json", "index.html", "run.json"}


def test_costs_are_said_first_and_figures_are_shown(command, tmp_path):
    code, out, err = command(*ON, "--out", tmp_path)
    assert code == 0
    costs = "measuring 26 prompts for all methods, and calibrating with 125, will cost 306 rows of the network"
    assert err.index("only 2 different prompts of the kind VM") < err.index(costs) < err.index("more")
    assert "VM: " in out and "of 2 flagged" in out and "of 20 false alarms" in out and "iso = Wen 2024" in out
    assert str(tmp_path / "index.html") in out


def test_the_kept_calibration_is_used_and_another_alpha(command, copied, tmp_path, monkeypatch):
    home = tmp_path / "home" / "calibrations"
    home.mkdir(parents=True)
    shutil.copy(copied / "benchmark.calibration.json", home)
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(home.parent))
    code, text, _ = command("--out", copied, "--alpha", 0.5, "--json")
    document = json.loads(text)
    assert code == 0 and "kept for the model" in document["calibrated_on"] and document["alpha"] == 0.5
    assert [p["memorized"] for p in document["prompts"]] == [p["p_value"] <= 0.5 for p in document["prompts"]]
    assert "out of reach" in one_line_of(command("--out", copied, "--alpha", 0.001))


def one_line_of(result):
    """The error, where lists had something to be said before it."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("cryptomnesia: ")]
    assert (code, out, len(lines)) == (2, "", 1) and err.rstrip().endswith(lines[0]) and "Traceback" not in err
    return lines[0]


def test_a_calibration_on_the_lists_themselves_is_refused(command, folder, copied, capsys, monkeypatch):
    (folder / "long.txt").write_text("\n".join(BENIGN[::-1]))
    file = folder / "long.calibration.json"
    made = caller(capsys)("calibrate", "-m", "model", "-p", "long.txt", "--draws", 1, "-o", file)
    assert made[0] == 0
    says = one_line_of(command("--negatives", "long.txt", "--calibration", file, "--out", copied))
    assert "was made of the prompts of long.txt" in says
    # and where it is kept, it is not used
    monkeypatch.setattr("cryptomnesia.prompts.BENIGN", folder / "benign.txt")
    (folder / "long.txt").write_text("\n".join(f"{text} x" for text in BENIGN))
    assert caller(capsys)("calibrate", "-m", "model", "-p", "long.txt", "--draws", 1)[0] == 0
    code, text, _ = command("--negatives", "long.txt", "--out", folder / "own", "--json")
    assert code == 0 and "of the shipped list" in json.loads(text)["calibrated_on"]


def test_prompts_that_are_compared_calibrate_nothing(command, folder, tmp_path):
    (folder / "mixed.txt").write_text("\n".join([*BENIGN[:99], "a cat"]))
    says = one_line_of(command("--calibrate-on", "mixed.txt", "--out", tmp_path))
    assert "mixed.txt has 99 prompts to calibrate with, 1 of them are compared here: give at least 100 others" in says


class Stopped:
    """Measures so many times, then the user has enough."""

    def __init__(self, times):
        self.left, self.measure = times, runs.measure

    def __call__(self, *arguments, **options):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.measure(*arguments, **options)


def test_a_stopped_benchmark_goes_on(command, done, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs, "measure", Stopped(1))
        code, out, err = command(*ON, "--out", tmp_path)
    assert (code, out) == (130, "") and f"stopped after 16 of 26 prompts, kept in {tmp_path}" in err
    assert not (tmp_path / "benchmark.json").exists()
    code, text, err = command(*ON, "--out", tmp_path, "--json")
    assert code == 0 and "goes on after 16 of 26 prompts" in err
    whole = json.loads((done / "benchmark.json").read_text())
    assert json.loads(text)["prompts"] == whole["prompts"] and json.loads(text)["pairs"] == whole["pairs"]


def test_other_settings_are_refused(command, folder, copied):
    says = one_line_of(command(*ON, "--out", copied, "--seed", 1))
    assert "holds a benchmark with other settings (seed: 0 then, 1 now)" in says
    assert "the model changed" in one_line_of(command(*ON, "--out", copied, "-m", "other"))
    assert "the negatives benign changed" in one_line_of(command("--negatives", "benign.txt", "--out", copied))


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--references", "."), "--references is for images: say how many of each memorized prompt with --generate N"),
        (("--steps", 3), "--steps is for images"),
        (("--generate", 1), "one image of a prompt is like nothing: give --generate 2 or more, or --references"),
        (("--calibration", "none"), "without a calibration there is neither our score nor a verdict"),
        (("--calibration", "x.json", *ON), "exclude each other"),
        (("--calibration", "nowhere.json"), "nowhere.json"),
        (("--negatives", "nowhere.txt"), "there is no file nowhere.txt"),
        (("--column", "words"), "no column 'words'"),
        (("--kinds", "sort"), "no column 'sort' with kinds"),
        (("--memorized", "latin.csv"), "is not UTF-8 text: save the file as UTF-8"),
        (("--generate", 2, "--references", "elsewhere"), "none of the 1 images in elsewhere has a memorized prompt"),
    ],
)
def test_bad_input_costs_one_line_before_the_model_is_read(command, folder, tmp_path, arguments, says):
    (folder / "latin.csv").write_bytes("Caption\nGrüße\n".encode("latin-1"))
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "a.png").write_bytes(png(np.zeros((40, 40, 3), np.uint8)))
    assert says in one_line(command("--model", "no model", *arguments, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


SMALL = ("--generate", 2, "--steps", 2, "--height", 32, "--width", 32)


@pytest.fixture
def references(tmp_path):
    place = tmp_path / "references"
    place.mkdir()
    for name, text in (("a", "a cat"), ("b", "a bird")):
        (place / f"{name}.png").write_bytes(png(np.full((48, 32, 3), 90, np.uint8)))
        (place / f"{name}.txt").write_text(text)
    return place


def test_images_tell_what_is_really_reproduced(command, tmp_path, references):
    arguments = (*ON, *SMALL, "--references", references, "--out", tmp_path / "out", "--json")
    code, text, err = command(*arguments)
    assert code == 0 and "then 6 images to make: " in err and "1 of 2 images belong to no memorized prompt" in err
    made = json.loads(text)["generated"]
    assert made["seeds"] == ["0", "1"] and [kind["referenced"] for kind in made["kinds"]] == [1, 0]
    first, second, third = made["prompts"]
    assert len(first["to_reference"]) == 2 and second["to_reference"] is third["to_reference"] is None
    assert all(0 <= prompt["nearest"] <= 1 and prompt["between"] in (0, 1) for prompt in made["prompts"])
    assert parsed((tmp_path / "out" / "index.html").read_text("utf-8")).seen.count("img") == 7
    says = one_line_of(command(*ON, *SMALL, "--steps", 3, "--out", tmp_path / "out"))
    assert "holds images with other settings" in says


def test_without_memory_for_an_image_what_was_measured_stays(command, tmp_path, monkeypatch):
    original = StableDiffusionPipeline.__call__

    def full(pipe, prompt, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    full.__signature__ = signature(original)
    arguments = (*ON, *SMALL, "--out", tmp_path, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(StableDiffusionPipeline, "__call__", full)
        assert "no memory for 2 images in one call, nor for one alone: give a smaller" in one_line_of(
            command(*arguments)
        )
    code, text, err = command(*arguments)
    assert code == 0, err
    assert "nothing to measure" in err and len(json.loads(text)["generated"]["prompts"]) == 3


def test_verdicts_are_those_of_the_same_noise(done, folder):
    """The first prompts by lot, asked again by hand."""
    from cryptomnesia.adapters import to_denoiser
    from cryptomnesia.adapters.loading import load_pipeline
    from cryptomnesia.signals.draws import derived_seed, draw_noise

    document = json.loads((done / "benchmark.json").read_text())
    texts = [prompt["text"] for prompt in document["prompts"]]
    chosen = sorted(texts, key=lambda text: derived_seed(0, "order", text))[:4]
    denoiser = to_denoiser(load_pipeline(str(folder / "model")))
    noise = draw_noise(denoiser, 1, derived_seed(0, "prompts", 0), denoiser.latent_shape())
    measured = memorization_score(denoiser, denoiser.encode(chosen), noise=noise)
    scores = Calibration.load(done / "benchmark.calibration.json").score(measured).tolist()
    told = {prompt["text"]: prompt["score"] for prompt in document["prompts"]}
    assert scores == pytest.approx([told[text] for text in chosen], abs=1e-5)


def test_a_calibration_by_words_is_read(command, copied, folder, tmp_path):
    from cryptomnesia.adapters import to_denoiser
    from cryptomnesia.adapters.loading import load_pipeline

    usual = {p["text"]: p["score"] for p in json.loads((copied / "benchmark.json").read_text())["prompts"]}
    denoiser, texts = to_denoiser(load_pipeline(str(folder / "model"))), list(usual)
    words = mean_text(denoiser.encode(texts))
    expectation = Expectation(words.mean(0).tolist(), (words[0] - words[1]).tolist())
    calibration = replace(Calibration.load(copied / "benchmark.calibration.json"), expectation=expectation)
    calibration.save(tmp_path / "words.calibration.json")
    code, text, err = command("--calibration", tmp_path / "words.calibration.json", "--out", copied, "--json")
    assert code == 0 and "nothing to measure" in err
    prompts = json.loads(text)["prompts"]
    less = [usual[prompt["text"]] - prompt["score"] for prompt in prompts]
    order = [texts.index(prompt["text"]) for prompt in prompts]
    expected = torch.as_tensor(expectation.of(words))[order].tolist()
    assert less == pytest.approx(expected, abs=1e-5) and max(map(abs, less)) > 1e-3
    scores = torch.tensor([prompt["score"] for prompt in prompts], dtype=torch.float64)
    assert [prompt["p_value"] for prompt in prompts] == calibration.p_of(scores).tolist()
