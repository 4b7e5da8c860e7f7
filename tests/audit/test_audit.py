"""Audits in one process: the same numbers however they are run, and nothing lost whatever stops them."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.audit import shards
from cryptomnesia.audit.inputs import Prompts
from cryptomnesia.audit.prompts import PromptJob
from cryptomnesia.audit.report import write_report
from cryptomnesia.audit.rows import PART, Done, Reject, Row
from cryptomnesia.audit.run import Audit, open_engine
from cryptomnesia.audit.shards import Shards
from cryptomnesia.audit.worker import Worker
from cryptomnesia.demo import demo_calibration, load_demo
from cryptomnesia.errors import InputError, MissingPackage, NotApplicable, OutOfMemory
from cryptomnesia.run_folder import locked
from cryptomnesia.signals.memorization import memorization_score

from ..helpers import auditing
from ..helpers.auditing import Opener, Reader, audit, equal, log, results
from ..helpers.toy import without_guidance

BAD = {3: "not a number, a", 2 * PART + 1: "not a number, b"}


def measured(texts, opener=None, sizes=(1,), **options):
    """Records of texts, asked in batches of these sizes in turn."""
    worker = Worker(PromptJob(opener or Opener(), **options))
    rows, found, turn = [Row(i, text) for i, text in enumerate(texts)], Done(), 0
    while rows:
        size = sizes[turn % len(sizes)]
        found, rows, turn = found + worker(rows[:size]), rows[size:], turn + 1
    return found


# --- numbers ---


def test_a_row_is_what_the_public_functions_say():
    """Independent of the batch: one prompt alone, its noise drawn by hand."""
    from hashlib import sha256

    record = measured(["a prompt"], seed=7, alignment=True).records[0]
    digest = sha256(b"7/prompt/a prompt").digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    noise = torch.randn(2, *auditing.SHAPE, generator=generator)
    reader, known = Reader(), auditing.calibration()
    result = memorization_score(reader, reader.encode(["a prompt"]), noise=noise)
    assert record["iso"] == pytest.approx(result.iso.item(), rel=1e-5)
    assert record["aniso"] == pytest.approx(result.aniso.item(), rel=1e-5)
    assert record["score"] == pytest.approx(known.score(result).item(), rel=1e-5)
    assert record["p_value"] == known.p_value(result).item()
    assert record["verdict"] == ("memorized" if record["p_value"] <= known.alpha else "clear")
    assert (record["rows_spent"], record["seed"], record["calibration"]) == (8, "7", known.identity)
    assert record["model"] == reader.fingerprint


def test_company_and_order_change_nothing():
    texts = [f"prompt {i}" for i in range(23)]
    alone = measured(texts).records
    for sizes in ([23], [5], [7, 1, 2]):
        assert equal(alone, measured(texts, sizes=sizes).records, 1e-5)
    backwards = measured(texts[::-1], sizes=[4]).records[::-1]
    assert equal([{**r, "row": 0} for r in alone], [{**r, "row": 0} for r in backwards], 1e-5)


def test_equal_prompts_get_equal_numbers_and_seeds_others():
    one, two = measured(["same", "other", "same"], sizes=[3]).records[::2]
    assert equal([{**one, "row": 0}], [{**two, "row": 0}], 1e-6)
    assert measured(["same"], seed=1).records[0]["iso"] != one["iso"]


def test_long_neighbours_change_nothing_on_the_built_in_model():
    """A short prompt beside one that is cut off: the encoder pads, and that must not matter."""
    guard = Guard(load_demo(), demo_calibration())
    texts = ["a red cat", "the stolen keeper of grimsby " * 40, "b"]
    alone, together = (measured(texts, lambda: (guard, 4), sizes=[n]).records for n in (1, 3))
    assert equal(alone, together, 1e-5)
    assert all(record["aniso"] is None and record["rows_spent"] == 8 for record in together)


def test_without_a_calibration_there_is_no_verdict():
    record = measured(["a"], Opener(calibrated=False)).records[0]
    assert (record["verdict"], record["p_value"], record["calibration"]) == ("uncalibrated", None, None)
    assert record["score"] == record["iso"]


def test_models_that_cannot_be_judged_are_refused():
    with pytest.raises(NotApplicable, match="starts from an image"):
        PromptJob(lambda: (Guard(without_guidance(Reader())), 2)).open()


# --- workers ---


def test_batches_are_halved_where_memory_ends():
    worker = Worker(PromptJob(Opener(rows=4 * 3)))
    texts = [Row(i, f"prompt {i}") for i in range(16)]
    worker.work.denoiser.asked.clear()
    assert equal(
        sorted(worker(texts).records, key=lambda r: r["row"]), measured([r.value for r in texts]).records, 1e-5
    )
    asked = worker.work.denoiser.asked
    assert asked[:4] == [4 * 16, 4 * 8, 4 * 4, 4 * 2]
    asked.clear()
    worker(texts)
    assert max(asked) == 4 * 2  # it is not tried again
    with pytest.raises(OutOfMemory):
        Worker(PromptJob(Opener(rows=0)))(texts[:1])


def test_a_row_without_a_number_is_rejected_and_the_rest_goes_on():
    found = measured(["a", "not a number", "b", "c"], sizes=[4])
    assert sorted(r["row"] for r in found.records) == [0, 2, 3]
    assert [(r.row, r.excerpt) for r in found.rejects] == [(1, "not a number")] and "NaN" in found.rejects[0].reason


@pytest.mark.parametrize(
    ("seconds", "rows", "most", "best"),
    [
        (lambda rows: 0.01, None, 8, 8),  # calls cost, rows do not
        (lambda rows: 0.01 * rows, None, 64, 1),  # rows cost, calls do not
        (lambda rows: 0.01 + 0.001 * max(0, rows - 4 * 2 * 4), None, 64, 8),  # so many at once are for nothing
        (lambda rows: 0.01, 4 * 5, 64, 4),  # memory has no room for more
        (lambda rows: 3.0, None, 64, 1),  # longer than a trial may take
        (lambda rows: 0.0, None, 8, 8),  # a clock that is too coarse to tell
    ],
)
def test_the_trial_finds_a_batch_that_fits(seconds, rows, most, best):
    """By a clock that only the model moves."""
    sample = [Row(i, f"prompt {i}") for i in range(3)]
    worker = Worker(PromptJob(Opener(rows=rows)))
    asked = worker.work.denoiser.asked
    worker.clock = lambda: sum(map(seconds, asked))
    assert worker.best_batch(sample, most) == best
    assert worker.best_batch([], most) == 1


# --- parts ---


def records(rows):
    return [{"row": row, "prompt": "x"} for row in rows]


def test_parts_are_written_once_whole_and_in_order(tmp_path):
    total = 2 * PART + 10
    shards = Shards(tmp_path, PromptJob(Opener()).schema(), total)
    shards.add(Done(records(range(total - 1, PART, -1))))
    assert shards.finished == {2} and shards.rows_kept == 10 + PART - 1
    shards.add(Done(records([PART])))
    assert shards.finished == {1, 2}
    assert [r["row"] for r in results(tmp_path)] == list(range(PART, total))
    again = Shards(tmp_path, shards.schema, total)
    rows = [Row(i, "x") for i in range(total)]
    batches = list(again.missing(rows, 100))
    assert [row for batch in batches for row in batch] == rows[:PART] and max(map(len, batches)) == 100


def test_batches_keep_to_their_part(tmp_path):
    shards = Shards(tmp_path, PromptJob(Opener()).schema(), 3 * PART)
    for batch in shards.missing([Row(i, "x") for i in range(3 * PART)], 100):
        assert len({row.row // PART for row in batch}) == 1


# --- runs ---


def test_a_run_finds_every_row_once(tmp_path):
    source = Prompts(log(tmp_path, 2 * PART + 5, BAD))
    found = audit(source, tmp_path / "out", batch=100)
    rejects = results(tmp_path / "out", "rejects")
    assert [r["row"] for r in rejects] == [3, 2 * PART + 1]
    assert sorted([r["row"] for r in found] + [3, 2 * PART + 1]) == list(range(source.total))
    assert [r["row"] for r in found] == sorted(r["row"] for r in found)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["finished"] and run["rows_total"] == source.total and run["model"] == Reader().fingerprint
    assert (run["schema"], run["kind"], run["alpha"], run["seed"]) == (2, "prompts", 0.05, "0")


def start(out, source, opener=None, seed=0):
    return Audit(source, PromptJob(opener or Opener(), seed), out)


def test_a_finished_run_does_nothing(tmp_path):
    source = Prompts(log(tmp_path, 20))
    audit(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    again = start(tmp_path / "out", source)
    assert again.complete and again.manifest.finished and again.done == 20
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}


def test_what_was_finished_is_not_asked_again(tmp_path):
    source = Prompts(log(tmp_path, 3 * PART, BAD))
    whole = audit(source, tmp_path / "whole", batch=64)
    run = start(tmp_path / "out", source)
    with open_engine("local", run.job) as engine:
        for done in run.steps(engine, 64):
            if done > PART:
                break
    again = start(tmp_path / "out", source)
    assert again.done == again.kept == PART + 64 and again.manifest.batch == 64
    with open_engine("local", again.job) as engine:
        assert list(again.steps(engine))[-1] == 3 * PART
        # 8 rows per prompt, and as many again for the batch with a bad one, which is halved until that is alone
        assert sum(engine.worker.work.denoiser.asked) <= 4 * (2 * PART - 64 + 2 * 64)
    assert results(tmp_path / "out") == whole


def test_a_kill_loses_and_doubles_nothing(tmp_path):
    source = Prompts(log(tmp_path, 4 * PART + 9, BAD))
    whole = audit(source, tmp_path / "whole", batch=32)
    code = (
        "from pathlib import Path; from tests.helpers.auditing import *; from cryptomnesia.audit.inputs import Prompts;"
        f"source = Prompts(Path({str(source.path)!r}));"
        f"audit(source, Path({str(tmp_path / 'out')!r}), batch=32, opener=Opener(seconds=.03))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    while not (parts := list((tmp_path / "out" / "results").glob("part-*"))) and process.poll() is None:
        time.sleep(0.02)  # it has no other way to tell
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(parts) < 5
    (tmp_path / "out" / "results" / ".cryptomnesia-0.tmp").write_bytes(b"half")  # what a power loss may leave
    assert audit(source, tmp_path / "out") == whole
    assert results(tmp_path / "out", "rejects") == results(tmp_path / "whole", "rejects")


@pytest.mark.parametrize("count", [PART, 2 * PART + 3])
def test_an_input_that_changes_meanwhile(tmp_path, count):
    """Shorter: there is no telling what the rest was. Longer: what came later is no part of the run."""
    run = start(tmp_path / "out", Prompts(log(tmp_path, PART + 1)))
    log(tmp_path, count)
    with open_engine("local", run.job) as engine:
        if count < PART + 1:
            with pytest.raises(InputError, match="became shorter"):
                list(run.steps(engine, 64))
        else:
            list(run.steps(engine, 64))
    assert [row["row"] for row in results(tmp_path / "out")] == list(range(min(count, PART + 1)))


def test_other_settings_are_refused_with_the_difference(tmp_path):
    source = Prompts(log(tmp_path, 5))
    audit(source, tmp_path / "out")
    with pytest.raises(InputError, match="seed: 0 then, 1 now"):
        start(tmp_path / "out", source, seed=1)
    with pytest.raises(InputError, match="the input's content changed"):
        start(tmp_path / "out", Prompts(log(tmp_path, 6)))
    source = Prompts(log(tmp_path, 5))
    job = PromptJob(Opener())
    with pytest.raises(InputError, match=r"draws: the default then, 3 now.*another --out"):
        Audit(source, job, tmp_path / "out", {"draws": 3})


def test_another_model_is_refused_when_a_run_goes_on(tmp_path):
    source = Prompts(log(tmp_path, PART + 5))
    run = start(tmp_path / "out", source)
    with open_engine("local", run.job) as engine:
        next(run.steps(engine, 16))
    again = start(tmp_path / "out", source, Opener(seed=1))
    with pytest.raises(InputError, match="the model changed"), open_engine("local", again.job) as engine:
        next(again.steps(engine))
    again = start(tmp_path / "out", source, Opener(calibrated=False))
    with pytest.raises(InputError, match=r"calibration changed; alpha: 0.05 then, the default now"):  # noqa: SIM117
        with open_engine("local", again.job) as engine:
            next(again.steps(engine))
    assert again.kept == 16


def test_odd_folders_are_refused(tmp_path):
    source = Prompts(log(tmp_path, 5))
    (tmp_path / "lost" / "results").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no run\.json"):
        start(tmp_path / "lost", source)
    (tmp_path / "odd").mkdir()
    for text in ("{", "[]", '{"schema": 3}', '{"schema": 2}', '{"schema": 2, "schema": 2}', "[" * 10_000):
        (tmp_path / "odd" / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json is no run of this version"):
            start(tmp_path / "odd", source)
    with pytest.raises(InputError, match="cannot be written"):
        start(tmp_path / "log.txt" / "out", source)  # a file is in the way


def test_a_full_disk_stops_cleanly_and_the_run_goes_on_after(tmp_path):
    """A limit on the size of files stands in for the disk."""
    source = Prompts(log(tmp_path, 2 * PART))
    whole = audit(source, tmp_path / "whole", batch=64)
    run = start(tmp_path / "out", source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_engine("local", run.job) as engine, pytest.raises(InputError) as caught:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            list(run.steps(engine, 64))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in str(caught.value) and "the same command goes on" in str(caught.value)
    assert not list((tmp_path / "out" / "results").iterdir())  # no half file, no other
    assert audit(source, tmp_path / "out") == whole


# --- an input that changes, parts that are others, stops ---


def changed(path, row, text):
    lines = path.read_text().split("\n")
    lines[row] = text
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("row", [PART + 7, 3 * PART - 1])
@pytest.mark.parametrize("renamed", [True, False])
def test_what_is_not_in_the_input_any_more_is_never_written(tmp_path, row, renamed):
    source = Prompts(log(tmp_path, 3 * PART))
    whole = audit(source, tmp_path / "whole", batch=64)
    before = source.path.read_text()
    run = start(tmp_path / "out", source)
    if renamed:
        source.path.rename(tmp_path / "old.txt")
        source.path.write_text(before)
    changed(source.path, row, "another prompt")
    first = row // PART * PART
    words = f"changed while it was read, in rows {first} to {first + PART - 1}"
    with open_engine("local", run.job) as engine, pytest.raises(InputError, match=words):
        list(run.steps(engine, 64))
    assert run.kept == first and results(tmp_path / "out") == whole[:first]
    with pytest.raises(InputError, match="the input's content changed"):
        start(tmp_path / "out", Prompts(source.path))
    source.path.write_text(before)
    assert audit(Prompts(source.path), tmp_path / "out") == whole


def test_an_input_that_only_grows_is_audited_as_it_was(tmp_path):
    source = Prompts(log(tmp_path, PART + 1))
    run = start(tmp_path / "out", source)
    with source.path.open("a") as file:
        file.write("\nmore\nand more")
    with open_engine("local", run.job) as engine:
        assert list(run.steps(engine, 64))[-1] == PART + 1


def copy(folder, kind, part, to):
    (folder / kind / f"part-{to:06d}.parquet").write_bytes((folder / kind / f"part-{part:06d}.parquet").read_bytes())


def test_a_part_that_was_overwritten_is_noticed(tmp_path):
    source, out = Prompts(log(tmp_path, 3 * PART, BAD)), tmp_path / "out"
    whole = audit(source, out, batch=64)
    page = write_report(out)
    words = r"part-000001\.parquet is damaged, or was overwritten by another: remove .*measure rows 128 to 255 anew"
    place = out / "results" / "part-000001.parquet"
    for content in ((out / "results" / "part-000000.parquet").read_bytes(), place.read_bytes()[:-1], b""):
        place.write_bytes(content)
        with pytest.raises(InputError, match=words):
            start(out, source)
        with pytest.raises(InputError, match=words):
            write_report(out)
    place.unlink()
    with pytest.raises(InputError, match="lacks a part of this audit: run the same one again"):
        write_report(out)
    again = start(out, source)
    assert again.kept == 2 * PART and not again.complete
    assert audit(source, out) == whole and write_report(out) == page


def test_rejects_that_were_overwritten_or_lost_are_noticed(tmp_path):
    source, out = Prompts(log(tmp_path, 3 * PART, BAD)), tmp_path / "out"
    audit(source, out, batch=64)
    copy(out, "rejects", 0, 2)
    with pytest.raises(InputError, match=r"rejects.part-000002\.parquet is damaged, or was overwritten"):
        start(out, source)
    (out / "rejects" / "part-000002.parquet").unlink()
    with pytest.raises(InputError, match=r"rejects.part-000002\.parquet is damaged, or was overwritten"):
        start(out, source)


def test_a_ledger_that_was_cut_off_costs_the_last_part(tmp_path):
    source, out = Prompts(log(tmp_path, 3 * PART)), tmp_path / "out"
    whole = audit(source, out, batch=64)
    ledger = out / "parts.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    assert start(out, source).kept == 2 * PART
    assert audit(source, out) == whole and start(out, source).complete


@pytest.mark.parametrize("batch", [1, 32])
def test_a_stop_keeps_what_was_measured(tmp_path, batch):
    source = Prompts(log(tmp_path, 400, BAD))
    whole = audit(source, tmp_path / "whole", batch=batch)
    run = start(tmp_path / "out", source)
    with open_engine("local", run.job) as engine, pytest.raises(KeyboardInterrupt):
        for done in run.steps(engine, batch):
            if done == 96:
                raise KeyboardInterrupt
    again = start(tmp_path / "out", source)
    assert again.kept == 96 == again.done
    assert audit(source, tmp_path / "out") == whole
    assert results(tmp_path / "out", "rejects") == results(tmp_path / "whole", "rejects")
    assert not (tmp_path / "out" / "under-way.json").exists()


def test_a_stop_that_is_asked_for_ends_what_was_begun(tmp_path):
    source = Prompts(log(tmp_path, 400))
    run, told = start(tmp_path / "out", source), []
    with open_engine("local", run.job) as engine:
        with pytest.raises(KeyboardInterrupt):
            for done in run.steps(engine, 32):
                told.append(done)
                run.stop()
        asked = sum(engine.worker.work.denoiser.asked)
    assert told[0] == 32 and told[-1] <= 32 * 3 and run.kept == told[-1] == asked // 4


def test_what_was_measured_is_written_after_a_while(tmp_path, monkeypatch):
    schema = PromptJob(Opener()).schema()
    shards_ = Shards(tmp_path, schema, 3 * PART)
    shards_.add(Done(records([0, PART]), [Reject(1, "is odd", "x", 2)]))
    assert Shards(tmp_path, schema, 3 * PART).rows_kept == 0  # nothing is due yet
    monkeypatch.setattr(shards, "FLUSH", 0.0)
    shards_.add(Done(records([2])))
    again = Shards(tmp_path, schema, 3 * PART)
    assert again.rows_kept == 4
    rows = [Row(i, "x") for i in range(3 * PART)]
    left = [row.row for batch in again.missing(rows, 50) for row in batch]
    assert left == sorted(set(range(3 * PART)) - {0, 1, 2, PART})
    again.add(Done(records(set(range(PART)) - {0, 1, 2})))
    assert [r["row"] for r in results(tmp_path)] == [0, *range(2, PART)]
    assert [(r["row"], r["line"]) for r in results(tmp_path, "rejects")] == [(1, 2)]
    assert Shards(tmp_path, schema, 3 * PART).rows_kept == PART + 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"records": [{"row": "x"}], "rejects": []}', "[" * 10_000])
def test_what_was_under_way_is_measured_again_where_it_cannot_be_read(tmp_path, text):
    (tmp_path / "under-way.json").write_text(text)
    assert Shards(tmp_path, PromptJob(Opener()).schema(), 3 * PART).rows_kept == 0


def test_what_does_not_fit_is_not_under_way(tmp_path):
    text = json.dumps({"records": records([0, 0, PART, 9 * PART, 2 * PART]), "rejects": []})
    (tmp_path / "under-way.json").write_text(text)
    assert Shards(tmp_path, PromptJob(Opener()).schema(), 2 * PART + 1).rows_kept == 1


def test_two_runs_do_not_share_a_folder(tmp_path):
    source = Prompts(log(tmp_path, 2 * PART))
    one, two = start(tmp_path / "out", source), start(tmp_path / "out", source)
    with open_engine("local", one.job) as engine:
        steps = one.steps(engine, 64)
        next(steps)
        with pytest.raises(InputError, match="another audit is writing to"):
            next(two.steps(engine, 64))
        list(steps)
        assert list(two.steps(engine, 64)) == [] and two.complete  # it looks at what is there now


def test_the_lock_goes_with_its_process(tmp_path):
    code = (
        "import sys, os; from pathlib import Path; from cryptomnesia.run_folder import locked;"
        f"place = locked(Path({str(tmp_path)!r})); place.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another audit"), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path), pytest.raises(InputError, match="another audit"), locked(tmp_path):
        pass


# --- engines ---


def test_engines_that_are_not_there(monkeypatch):
    job = PromptJob(Opener())
    with pytest.raises(InputError, match="--engine ray"):
        open_engine("local", job, 2)
    with pytest.raises(InputError, match="local or ray"):
        open_engine("spark", job)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install ray.*cryptomnesia\[ray\]"):
        open_engine("ray", job, 2)


def test_without_pyarrow_nothing_is_begun(tmp_path, monkeypatch):
    source = Prompts(log(tmp_path, 5))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"cryptomnesia\[audit\]"):
        start(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_a_pipeline_reads_texts_of_any_kind():
    """Very long, or of no language: each row is measured; and what is no text costs its neighbours nothing."""
    guard = Guard(to_denoiser(load_demo()))
    found = measured(["\u200b", "x" * 20_000, "a\x00b", "\U0001f600" * 50], lambda: (guard, 1), sizes=[4])
    assert [record["row"] for record in found.records] == [1, 3]
    assert [(reject.row, reject.reason.split(":")[0]) for reject in found.rejects] == [
        (0, "the prompt has no character that can be seen"),
        (2, "the prompt holds a NUL character"),
    ]
