"""The command, as its users meet it: exit codes, one line for bad input, nothing half-written."""

import io
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from inspect import isfunction

import pytest
import torch

from cryptomnesia.calibration import Calibration
from cryptomnesia.calibration_run import MOST_PER_CALL, CalibrationRun
from cryptomnesia.cli import run
from cryptomnesia.questions import QUESTIONS

from ..helpers import pipelines
from ..helpers.commands import caller, one_line

BENIGN = [f"{a}{b} {b}{c}" for a in "abcde" for b in "fghij" for c in "klmno"]  # 125, all different


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with two models, a list of benign prompts and a calibration of the first model."""
    place = tmp_path_factory.mktemp("cli")
    pipelines.build("sd1").save_pretrained(place / "model")
    pipelines.build("sd1", seed=1).save_pretrained(place / "other")
    (place / "benign.txt").write_text("\n".join(BENIGN))
    arguments = ["calibrate", "-m", place / "model", "-p", place / "benign.txt", "-o", place / "model.calibration.json"]
    assert run([str(a) for a in [*arguments, "--draws", 2]]) == 0
    return place


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr."""
    monkeypatch.chdir(folder)
    return caller(capsys)


def test_check_prints_a_row_per_prompt(command):
    code, out, err = command("check", "-m", "model", "-c", "model.calibration.json", "a [red] cat", "b")
    assert code == 0
    rows = out.splitlines()
    assert [row.split()[-1] for row in rows] == ["prompt", "cat", "b"]
    assert "a [red] cat" in rows[1] and "✓ clear" in rows[1]
    assert "0 of 2 likely memorized, at a false-alarm rate of 0.01" in err
    assert "Benjamini-Hochberg" in err


def test_check_exits_3_if_any_is_likely_memorized(command):
    code, out, err = command(
        "check", "-m", "model", "-c", "model.calibration.json", "--alpha", 0.5, "-f", "benign.txt", "--jsonl"
    )
    assert code == 3
    verdicts = [json.loads(line)["verdict"] for line in out.splitlines()]
    assert len(verdicts) == len(BENIGN)
    assert f"{verdicts.count('memorized')} of {len(BENIGN)} likely memorized" in err


def test_json_lines_are_the_reports(command):
    code, out, _ = command("check", "-m", "model", "-c", "model.calibration.json", "--jsonl", "--seed", 2**63, "a", "b")
    first, second = (json.loads(line) for line in out.splitlines())
    assert (code, first["prompt"], second["prompt"]) == (0, "a", "b")
    assert (first["seed"], first["draws"], first["alpha"]) == (str(2**63), 2, 0.01)
    assert 0 < first["p_value"] <= 1


def test_without_a_calibration_there_is_no_verdict_but_a_hint(command):
    code, out, err = command("check", "-m", "model", "a")
    assert code == 5
    assert "? uncalibrated" in out and "✓" not in out
    assert "no verdict for 1 of 1: model has no calibration: run `cryptomnesia calibrate --model model` once" in err
    code, out, err = command("check", "-m", "model", "a", "--calibration", "none")
    assert code == 5 and "? uncalibrated" in out and "leave out --calibration none" in err


def test_one_document_however_many_prompts(command):
    arguments = ("check", "-m", "model", "-c", "model.calibration.json", "--json", "-f", "benign.txt")
    code, out, _ = command(*arguments, "--alpha", 0.5)
    document = json.loads(out)
    verdicts = [report["verdict"] for report in document["results"]]
    assert code == 3 and document["schema"] == "cryptomnesia/check/1" and len(verdicts) == len(BENIGN)
    summary = document["summary"]
    assert summary["verdicts"] == {name: verdicts.count(name) for name in ("memorized", "clear")}
    assert (summary["prompts"], summary["alpha"], summary["complete"]) == (len(BENIGN), 0.5, True)
    assert "exclude each other" in one_line(command(*arguments, "--jsonl"))


def test_the_document_is_valid_although_the_command_was_stopped(command, monkeypatch):
    from cryptomnesia.guard import Guard

    check_many = Guard.check_many

    def stopped(*arguments, **options):
        yield next(iter(check_many(*arguments, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Guard, "check_many", stopped)
    code, out, _ = command("check", "-m", "model", "--json", "a", "b")
    document = json.loads(out)
    assert code == 130 and len(document["results"]) == document["summary"]["prompts"] == 1
    assert document["summary"]["complete"] is False


def test_small_batches_change_nothing(command):
    arguments = ("check", "-m", "model", "-c", "model.calibration.json", "--jsonl", *BENIGN[:5])
    whole, small = (command(*arguments, "--batch-rows", rows)[1].splitlines() for rows in (256, 1))
    for one, two in zip(whole, small, strict=True):
        assert json.loads(one)["score"] == pytest.approx(json.loads(two)["score"], abs=1e-4)


def test_standard_input(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a"}\n{"prompt": "b"}\n')))
    code, out, _ = command("check", "-m", "model", "-f", "-", "--format", "jsonl", "--jsonl")
    assert code == 5
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["a", "b"]


CHECK = ("check", "-m", "model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (CHECK, "no prompts: give them as arguments"),
        ((*CHECK, "-f", "missing.txt"), "there is no file missing.txt"),
        ((*CHECK, "a", "--draws", "0"), "--draws"),
        ((*CHECK, "a", "--draws=-3"), "--draws"),
        ((*CHECK, "a", "--draws", "many"), "--draws"),
        ((*CHECK, "a", "--height", "17"), "height 17"),
        ((*CHECK, "a", "--alpha", "2"), "between 0 and 1"),
        ((*CHECK, "a", "--alpha", "0.1"), "--alpha needs a calibration"),
        ((*CHECK, "a", "-c", "missing.json"), "missing.json cannot be read"),
        ((*CHECK, "a", "-c", "benign.txt"), "benign.txt is no calibration that can be read (it is no valid JSON"),
        ((*CHECK, "a", "-c", "other"), "other is no calibration that can be read"),
        ((*CHECK, "a", "-c", "model.calibration.json", "--draws", "4"), "another number of draws: 2, not 4"),
        ((*CHECK, "a", "-c", "model.calibration.json", "--height", "32"), "another latent size"),
        ((*CHECK, "a", "-c", "model.calibration.json", "--alpha", "0.001"), "out of reach"),
        (("check", "-m", "other", "a", "-c", "model.calibration.json"), "another model"),
        (("check", "-m", "nowhere", "a"), "nowhere does not exist"),
        (("check", "-m", ".", "a"), "no diffusers folder"),
        (("check", "--colour", "a"), "No such option"),
        (("chek", "a"), "No such command 'chek'"),
        (("calibrate", "-m", "model", "-p", "benign.txt", "-o", "no/where.json"), "there is no folder no"),
        (("calibrate", "-m", "model", "-p", "benign.txt", "-o", "."), ". is a folder"),
        (("calibrate", "-m", "model", "-p", "benign.txt", "-o", "x.json", "--alpha", "0.001"), "at least 999"),
    ],
)
def test_bad_input_costs_one_line(command, arguments, message):
    assert message in one_line(command(*arguments))


def test_too_few_benign_prompts(command, tmp_path):
    (tmp_path / "few.txt").write_text("\n".join([*BENIGN[:99], *BENIGN[:99]]))
    result = command("calibrate", "-m", "model", "-p", tmp_path / "few.txt", "-o", tmp_path / "x.json")
    assert "99 different benign prompts are too few" in one_line(result)


def test_pickles_are_refused(command, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    assert "is a pickle" in one_line(command("check", "-m", tmp_path / "model.ckpt", "a"))


def test_truncated_safetensors(command, folder, tmp_path):
    whole = next((folder / "model" / "unet").glob("*.safetensors")).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "no complete safetensors file" in one_line(command("check", "-m", tmp_path / "cut.safetensors", "a"))
    shutil.copytree(folder / "model", tmp_path / "model")
    next((tmp_path / "model" / "unet").glob("*.safetensors")).write_bytes(whole[:-8])
    assert "no complete safetensors file" in one_line(command("check", "-m", tmp_path / "model", "a"))


def test_a_model_that_answers_nan(command, tmp_path):
    pipe = pipelines.build("sd1")
    pipe.unet.conv_out.bias.data.fill_(torch.nan)
    pipe.save_pretrained(tmp_path / "broken")
    assert "NaN" in one_line(command("check", "-m", tmp_path / "broken", "a"))


def test_calibrate_writes_what_check_reads(command, folder):
    code, out, err = command(
        "calibrate", "-m", "model", "-p", "benign.txt", "-o", "again.calibration.json", "--draws", 2, "--json"
    )
    calibration = Calibration.load(folder / "again.calibration.json")
    assert (code, json.loads(out)["n"]) == (0, calibration.n)
    assert (
        f"{len(BENIGN)} prompts will cost {4 * len(BENIGN)} rows of the network, as many as 5 images of 50 steps" in err
    )
    assert "at this speed, " in err and err.count(" more") == 1
    assert calibration.scores == Calibration.load(folder / "model.calibration.json").scores
    assert not list(folder.glob("again*.partial")) and not list(folder.glob("*.tmp"))


ONCE = ("calibrate", "-m", "model", "-p", "benign.txt", "--draws", 1)


def test_calibrate_keeps_it_where_check_finds_it(command, folder):
    before = {path.name for path in folder.iterdir()}
    code, out, _ = command(*ONCE, "--json")
    made = json.loads(out)
    assert code == 0 and made["calibration"] == made["kept"] and made["draws"] == 1
    assert Calibration.load(made["kept"]).n == len(BENIGN)
    assert {path.name for path in folder.iterdir()} == before
    code, out, err = command("check", "-m", "model", "a cat", "--json")
    (report,) = json.loads(out)["results"]
    assert code == 0 and report["verdict"] == "clear" and report["draws"] == 1
    code, out, err = command("check", "-m", "model", "a cat", "--height", 32, "--width", 32)
    assert code == 5 and "another latent size" in err and "--height 32 --width 32" in err
    code, out, err = command("check", "-m", "model", "a cat", "--draws", 2)
    assert code == 5 and "another number of draws: 1, not 2" in err
    code, out, err = command("check", "-m", "other", "a cat")
    assert code == 5 and "other has no calibration: run `cryptomnesia calibrate --model other` once" in err


def test_a_quick_calibration_costs_two_images(command, folder):
    quick = ("calibrate", "-m", "model", "-p", "benign.txt", "--quick", "-o", "quick.calibration.json")
    code, _, err = command(*quick)
    assert code == 0 and "100 prompts will cost 200 rows of the network, as many as 2 images of 50 steps" in err
    made = Calibration.load(folder / "quick.calibration.json")
    assert (made.n, made.draws, made.alpha) == (100, 1, 0.01)
    code, out, _ = command("check", "-m", "model", "-c", "quick.calibration.json", "a cat", "--json")
    (report,) = json.loads(out)["results"]
    assert code in (0, 3) and report["p_value"] is not None and report["draws"] == 1
    code, _, err = command(*quick, "--draws", 2)
    assert code == 0 and "100 prompts will cost 400 rows" in err


def test_a_calibration_where_the_sampler_starts(command, folder):
    start = ("calibrate", "-m", "model", "-p", "benign.txt", "--draws", 1, "-o", "start.calibration.json", "--steps")
    assert command(*start, 20)[0] == 0
    assert Calibration.load(folder / "start.calibration.json").time == 951
    code, out, _ = command("check", "-m", "model", "-c", "start.calibration.json", "a cat", "--json")
    assert code in (0, 3) and json.loads(out)["results"][0]["p_value"] is not None
    assert "cannot take 5000 steps" in one_line(command(*start, 5000))


def test_a_calibration_by_words(command, folder):
    words = ("calibrate", "-m", "model", "-p", "benign.txt", "--draws", 1, "-o", "words.calibration.json", "--by-words")
    code, _, err = command(*words)
    expectation = Calibration.load(folder / "words.calibration.json").expectation
    assert code == 0 and expectation is not None
    assert ("is not used" in err) == (expectation.direction == [])
    code, out, _ = command("check", "-m", "model", "-c", "words.calibration.json", "a cat", "--json")
    (report,) = json.loads(out)["results"]
    assert code in (0, 3) and ("lead to expect" in (report["note"] or "")) == (expectation.direction != [])
    assert "by one of them" in one_line(command(*words, "--known", "benign.txt"))


def test_known_prompts_teach_or_are_told_not_to(command, folder):
    more = [f"{a}{b} {b}{c}" for a in "abcdef" for b in "fghij" for c in "klmno"]
    (folder / "more.txt").write_text("\n".join(more))
    (folder / "known.csv").write_text("prompt,type\n" + "\n".join(f"known {i},VM" for i in range(24)))
    known = ("calibrate", "-m", "model", "-p", "more.txt", "--draws", 1, "-o", "taught.calibration.json", "--known")
    code, _, err = command(*known, "known.csv")
    made = Calibration.load(folder / "taught.calibration.json")
    assert code == 0 and "74 prompts will cost 296 rows" in err and "24 known prompts taught" in err
    assert made.n == (len(more) if made.combination.weights is None else 100)
    small = (*known[:4], "benign.txt", *known[5:])
    assert "83 benign prompts are too few" in one_line(command(*small, "known.csv"))
    (folder / "few.txt").write_text("one\ntwo")
    assert "2 different memorized prompts are too few" in one_line(command(*known, "few.txt"))


def test_what_is_calibrated_is_not_calibrated_again(command, folder, monkeypatch):
    _, first, _ = command(*ONCE, "--json")
    monkeypatch.setattr(CalibrationRun, "steps", lambda run: pytest.fail("measured again"))
    code, out, err = command(*ONCE, "--json")
    assert code == 0 and out == first and err.startswith("nothing to measure")
    code, out, err = command(*ONCE, "-o", "copy.calibration.json", "--alpha", 0.05)
    assert code == 0 and "false-alarm rate of 0.05" in out and "nothing to measure" in err
    copy = Calibration.load(folder / "copy.calibration.json")
    assert (copy.alpha, copy.draws) == (0.05, 1)
    assert command(*ONCE, "-o", "copy.calibration.json", "--alpha", 0.05)[:2] == (0, out)


def test_a_home_that_cannot_be_written_is_found_before_the_work(command, folder, monkeypatch):
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(folder / "benign.txt"))
    assert "set CRYPTOMNESIA_HOME to a folder of yours" in one_line(command(*ONCE))
    code, out, err = command(*ONCE, "-o", "elsewhere.calibration.json", "--json")
    assert code == 0 and json.loads(out)["kept"] is None and "give the file as --calibration" in err
    assert command("check", "-m", "model", "a cat", "-c", "elsewhere.calibration.json")[0] == 0


def test_calibration_files_that_never_end_or_are_huge(command, tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "no regular file" in one_line(command("check", "-m", "model", "a", "-c", tmp_path / "pipe"))
        assert "holds no prompt" in one_line(command(*ONCE[:3], "-p", tmp_path / "pipe"))
        assert "holds no prompt" in one_line(command("check", "-m", "model", "-f", tmp_path / "pipe"))
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    assert "larger than 64 MiB" in one_line(command("check", "-m", "model", "a", "-c", tmp_path / "huge"))


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="a shell hands over pipes by such names")
def test_prompts_from_a_pipe_that_someone_writes_to(command):
    read, write = os.pipe()
    try:
        with os.fdopen(write, "w") as stream:
            stream.write("a cat\n" * 3)
        code, out, _ = command("check", "-m", "model", "-f", f"/dev/fd/{read}", "--jsonl")
    finally:
        os.close(read)
    assert code == 5 and len(out.splitlines()) == 3


def test_the_estimate_is_in_words():
    from cryptomnesia.commands.calibrate import duration

    found = [duration(seconds) for seconds in (0.1, 1.4, 2.2, 89, 91, 3600, 5400, 90_000)]
    assert found[:4] == ["a second", "a second", "2 seconds", "89 seconds"]
    assert found[4:] == ["2 minutes", "60 minutes", "1.5 hours", "25.0 hours"]


def test_calibrate_goes_on_where_it_was_stopped(command, folder, monkeypatch):
    whole_steps = CalibrationRun.steps

    def stopped_after_two(self):
        steps = whole_steps(self)
        yield next(steps)
        yield next(steps)
        raise KeyboardInterrupt

    arguments = ("calibrate", "-m", "model", "-p", "benign.txt", "-o", "stop.calibration.json", "--draws", 2)
    with monkeypatch.context() as patch:
        patch.setattr(CalibrationRun, "steps", stopped_after_two)
        code, _, err = command(*arguments)
    done = 2 * MOST_PER_CALL
    assert code == 130
    assert f"stopped after {done} of {len(BENIGN)} prompts" in err and "stop.calibration.json.partial" in err
    assert not (folder / "stop.calibration.json").exists()
    code, _, err = command(*arguments)
    assert code == 0
    assert f"goes on after {done} of {len(BENIGN)} prompts" in err
    calibration = Calibration.load(folder / "stop.calibration.json")
    assert calibration.scores == pytest.approx(Calibration.load(folder / "model.calibration.json").scores)
    assert not list(folder.glob("stop*.partial"))


def test_ctrl_c_while_checking(command, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("cryptomnesia.guard.Guard.check_many", stopped)
    code, out, err = command("check", "-m", "model", "a")
    assert (code, out) == (130, "")
    assert err == "stopped after 0 prompts\n"


def test_a_reader_that_leaves_early(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "cryptomnesia.cli", "check", "-m", "model", "-f", "benign.txt", "--batch-rows", "16"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait() == 141
    assert "Traceback" not in err and "Exception ignored" not in err


@pytest.mark.parametrize("name", [question.command for question in QUESTIONS])
def test_help_shows_all_that_it_is_written_to(name, capsys):
    """A word in brackets would be taken for markup, and vanish."""
    written = getattr(import_module(f"cryptomnesia.commands.{name}"), name)
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out.split()
    if isfunction(written):
        assert [word for word in (written.__doc__ or "").split() if word not in shown] == []


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys\nfrom cryptomnesia.cli import run\n"
        "codes = [run([c, '--help']) for c in ('demo', 'check', 'calibrate', 'rewrite')] + [run(['--version'])]\n"
        "sys.stderr.write(repr((codes, [m for m in ('torch', 'diffusers', 'PIL') if m in sys.modules])))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr == "([0, 0, 0, 0, 0], [])"
    assert "false-alarm" in found.stdout.lower()


def test_missing_packages_are_named():
    code = (
        "import sys\nfrom cryptomnesia.cli import run\n"
        "sys.modules['diffusers'] = None\nfirst = run(['check', 'a'])\n"
        "sys.modules['typer'] = None\nprint(first, run(['check', 'a']))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "2 2\n"
    assert "pip install diffusers" in found.stderr and "pip install typer" in found.stderr
    assert "Traceback" not in found.stderr and found.stderr.count("\n") == 2
