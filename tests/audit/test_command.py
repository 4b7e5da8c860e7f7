"""`cryptomnesia audit prompts`, as its users meet it."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from cryptomnesia.audit.rows import PART
from cryptomnesia.cli import run

from ..helpers import pipelines
from ..helpers.auditing import results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small models and a log of prompts."""
    place = tmp_path_factory.mktemp("audit")
    for seed, name in enumerate(("model", "other")):
        pipelines.build("sd1", seed=seed).save_pretrained(place / name)
    (place / "log.txt").write_text("\n".join(f"a [red] cat {i}" for i in range(6)))
    return place


@pytest.fixture
def audit(folder, tmp_path, monkeypatch, capsys):
    """audit(*options) -> exit code, stdout, stderr; the folder is where the models are."""
    monkeypatch.chdir(folder)

    def call(*options, model="model", out=tmp_path / "out", log="log.txt"):
        capsys.readouterr()
        arguments = ["audit", "prompts", "-i", log, "-o", out, "-m", model, "--draws", 1, *options]
        return run([str(argument) for argument in arguments]), *capsys.readouterr()

    return call


def test_an_audit_from_the_log_to_the_report(audit, tmp_path):
    code, out, err = audit()
    assert code == 5 and "6 prompts measured" in out and "report:" in out and not err
    assert [row["row"] for row in results(tmp_path / "out")] == list(range(6))
    assert {row["verdict"] for row in results(tmp_path / "out")} == {"uncalibrated"}
    before = (tmp_path / "out" / "report.html").stat().st_mtime_ns
    again = audit()
    assert again[:2] == (5, out)
    assert (tmp_path / "out" / "report.html").stat().st_mtime_ns == before
    (tmp_path / "out" / "report.html").unlink()  # stopped before it was written
    assert audit("--gallery", 0)[:2] == (5, out) and (tmp_path / "out" / "report.html").exists()


def test_events_for_machines(audit, tmp_path):
    code, out, _ = audit("--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 5  # no calibration, no verdict
    assert events[0]["event"] == "started"
    assert [event["event"] for event in events[-2:]] == ["progress", "finished"]
    progress, finished = events[-2:]
    assert (progress["done"], progress["total"], progress["seconds_left"]) == (6, 6, 0) and progress["rate"] > 0
    assert finished["rows"] == 6 and finished["rejects"] == 0 and finished["verdicts"] == {"uncalibrated": 6}
    assert all(row["aniso"] is None and row["rows_spent"] == 2 for row in results(tmp_path / "out"))
    code, out, _ = audit("--json", "--quiet", out=tmp_path / "quiet")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["finished"]


def test_what_stands_out_on_the_built_in_model(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("text,id\nthe stolen keeper of grimsby,1\n,2\nmonkey face on blue,3\n")
    options = ["-i", tmp_path / "log.csv", "-o", tmp_path / "out", "--column", "text", "--gallery", 0, "--json"]
    code = run([str(option) for option in ["audit", "prompts", *options]])
    finished = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert finished["verdicts"] == {"memorized": 1, "clear": 1} and finished["rejects"] == 1
    assert finished["standing"] == 1 and code == 3
    assert [row["row"] for row in results(tmp_path / "out", "rejects")] == [1]
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["draws"] == 4 and manifest["alpha"] == 0.01 and manifest["calibration"]


def test_a_model_that_was_replaced_is_refused(audit, folder, tmp_path):
    (folder / "mine").symlink_to("model")
    assert audit(model="mine")[0] == 5
    (folder / "mine").unlink()
    (folder / "mine").symlink_to("other")
    code, out, err = audit(model="mine")
    assert (code, out) == (2, "") and "the model's files changed" in err and err.count("\n") == 1


def test_other_options_are_refused_with_the_difference(audit):
    assert audit()[0] == 5
    for options, words in [
        (["--seed", 1], "seed: 0 then, 1 now"),
        (["--alignment"], "alignment: false then, true now"),
        (["--column", "text"], "column: prompt then, text now"),
        (["--height", 64, "--seed", 2], "seed: 0 then, 2 now; height: the default then, 64 now"),
    ]:
        code, out, err = audit(*options)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.txt", b"", "no prompt"),
        ("log.csv", b"text\na\n", "--column"),
        ("log.parquet", b"PAR1 and no more", "cut off"),
        ("log.jsonl", b"7\n8\n", "none of the 2 rows"),
        ("log.doc", b"a", "no known format"),
    ],
)
def test_input_that_cannot_be_used_costs_one_line(audit, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    code, out, err = audit(log=tmp_path / name)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "spark"], "local or ray"),
        (["--workers", 2], "--engine ray"),
        (["--alpha", 2], "--alpha"),
        (["--calibration", "none.json"], "none.json"),
    ],
)
def test_options_that_cannot_be_used_cost_one_line(audit, options, words):
    code, out, err = audit(*options)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_without_ray_there_is_a_hint(audit, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = audit("--engine", "ray")
    assert (code, out) == (2, "") and "cryptomnesia[ray]" in err and err.count("\n") == 1


def test_an_unwritable_place_costs_one_line(audit, folder):
    code, out, err = audit(out=folder / "log.txt" / "out")
    assert (code, out) == (2, "") and "cannot be written" in err and err.count("\n") == 1


def test_a_stop_keeps_what_was_begun_and_the_same_command_goes_on(folder, tmp_path):
    """For real, in processes of their own, which would go on for a minute."""
    total, kept = 400 * PART, 0
    (tmp_path / "log.txt").write_text("\n".join(f"a cat {i}" for i in range(total)))
    options = ["-i", tmp_path / "log.txt", "-o", tmp_path / "out", "-m", folder / "model", "--draws", 1, "--gallery", 0]
    command = [sys.executable, "-m", "cryptomnesia.cli", *map(str, ["audit", "prompts", "--json", *options])]
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs ignore it
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(command, **streams, env=os.environ, preexec_fn=listening)
        started = json.loads(process.stdout.readline())
        assert started == {"event": "started", "total": total, "done": kept}
        assert json.loads(process.stdout.readline())["event"] == "progress"
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 130
        before, stopped = kept, json.loads(out.splitlines()[-1])
        kept = stopped["done"]
        assert stopped == {"event": "stopped", "total": total, "done": kept}
        assert before < kept < total
        assert len(results(tmp_path / "out")) == kept // PART * PART
        assert f"stopped: {kept} of {total} rows are kept" in err and "the same command goes on" in err
        assert "Traceback" not in err
