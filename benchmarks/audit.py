"""What an audit costs: `python -m benchmarks.audit`. About ten minutes on two idle cores, one thread each.

- overhead: the local engine, reading and writing included, against the bare batched function on the same batches, on
  the built-in model; paired, alternating.
- ray: one against two Ray workers on the built-in model, once both have loaded it.
- memory: peak of a process that audits 1,000 and 100,000 prompts, without and with the report. A stand-in takes the
  place of the model, a function of a few numbers per prompt, since only the engine is looked at.
- resume: on the stand-in, how long until a run of 100,000 prompts that lacks its last tenth measures again.
- first: on the built-in model, from the start of the command to the first result and to the first part on disk.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.audit.inputs import Prompts
from cryptomnesia.audit.ledger import RESULTS, part_name
from cryptomnesia.audit.prompts import PromptJob, prompt_noise
from cryptomnesia.audit.report import write_report
from cryptomnesia.audit.rows import PART, Row
from cryptomnesia.audit.run import Audit, open_engine
from cryptomnesia.commands.models import open_guard
from cryptomnesia.demo.captions import captions
from cryptomnesia.denoiser import Condition
from cryptomnesia.signals.memorization import memorization_score

from .common import RESULTS as STORED
from .common import arguments, peak_memory, store, stored, table

DRAWS, BATCH = 4, 16
SHORT, LONG = 1_000, 100_000


class StandIn(CallableDenoiser):
    """As little work as a denoiser can do, that reads texts."""

    def __init__(self) -> None:
        shape = (4, 8, 8)
        options: dict[str, Any] = {"empty": torch.zeros(1, 1, 1), "latent_shape": shape, "fingerprint": "stand-in"}
        super().__init__(lambda x, t, c: x * (1 + c[:, :1, :1, None]), torch.linspace(0.999, 0.005, 1000), **options)

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        return Condition(text=torch.tensor([float(len(text)) for text in prompt]).view(-1, 1, 1))


def demo() -> PromptJob:
    """The built-in model with its calibration, as `cryptomnesia audit prompts` opens it."""
    return PromptJob(partial(open_guard, "demo", "auto", None, DRAWS, (None, None)))


def stand_in() -> PromptJob:
    return PromptJob(lambda: (Guard(StandIn()), 1))


def log(folder: Path, count: int) -> Prompts:
    """So many different prompts."""
    texts = [caption.text for caption in captions()]
    path = folder / f"{count}.txt"
    path.write_text("\n".join(f"{texts[i % len(texts)]} {i}" for i in range(count)))
    return Prompts(path)


def start(source: Prompts, job: PromptJob, out: Path) -> Audit:
    return Audit(source, job, out)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def overhead(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of the engine and of the bare function for the same prompts."""
    source, job, pairs = log(folder, rows), demo(), []
    with open_engine("local", job) as engine:
        work = engine.worker.work  # type: ignore[union-attr]
        texts = [row.value for row in source if isinstance(row, Row)]
        engine.best_batch([Row(0, texts[0])], 1)  # warm
        for number in range(rounds):
            run = start(source, job, folder / f"overhead{number}")
            ours = seconds(lambda run=run: list(run.steps(engine, BATCH)))
            pairs.append((ours, seconds(lambda: bare(work, texts))))
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    middle = statistics.median(theirs for _, theirs in pairs)
    return {
        "rows": rows,
        "batch": BATCH,
        "draws": DRAWS,
        "rows per second, bare": rows / middle,
        "rows per second, audit": rows / statistics.median(ours for ours, _ in pairs),
        "ratio": statistics.median(ratios),
        "spread": [ratios[0], ratios[-1]],
    }


def bare(work: Any, texts: list[str]) -> None:
    """Encoding, noise and the batched function, no more; one network call per batch."""
    for begin in range(0, len(texts), BATCH):
        some = texts[begin : begin + BATCH]
        noise = torch.stack([prompt_noise(work.denoiser, text, DRAWS, 0, work.shape) for text in some])
        condition = work.denoiser.encode(some)
        result = memorization_score(
            work.denoiser, condition, noise=noise, alignment=False, batch_rows=2 * DRAWS * BATCH
        )
        work.guard.calibration.p_value(result)


def on_ray(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Rows per second of one and of two workers, alternating; every round starts its own."""
    source, job, found = log(folder, rows), demo(), {1: [], 2: []}
    for number in range(rounds):
        for workers in found:
            with open_engine("ray", job, workers) as engine:
                warm = [[row] for row in islice(source, 8 * workers)]
                list(engine.map(warm))  # type: ignore[arg-type]
                run = start(source, job, folder / f"ray{number}-{workers}")
                found[workers].append(rows / seconds(lambda run=run, engine=engine: list(run.steps(engine, BATCH))))
    gains = sorted(two / one for one, two in zip(found[1], found[2], strict=True))
    return {
        "rows": rows,
        "batch": BATCH,
        "rows per second, 1 worker": statistics.median(found[1]),
        "rows per second, 2 workers": statistics.median(found[2]),
        "gain": statistics.median(gains),
        "spread": [gains[0], gains[-1]],
    }


def memory(folder: Path) -> dict[str, Any]:
    """Peak resident megabytes of processes that audit the stand-in."""
    found: dict[str, Any] = {}
    for count in (SHORT, LONG):
        log(folder, count)
        code = f"import benchmarks.audit as a; a.audit_in_own_process({str(folder)!r}, {count})"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        found[f"{count} prompts"] = json.loads(out)
    first, last = found.values()
    for name in ("audit", "with report"):
        found[f"ratio, {name}"] = last[f"MB, {name}"] / first[f"MB, {name}"]
    return found


def audit_in_own_process(folder: str, count: int) -> None:
    place = Path(folder)
    run = start(Prompts(place / f"{count}.txt"), stand_in(), place / f"memory{count}")
    begin = time.perf_counter()
    with open_engine("local", run.job) as engine:
        for _ in run.steps(engine, PART):
            pass
    run.finish()
    took, audited = time.perf_counter() - begin, peak_memory() / 2**20
    report = seconds(lambda: write_report(run.out))
    print(
        json.dumps(
            {"MB, audit": audited, "MB, with report": peak_memory() / 2**20, "seconds": took, "seconds, report": report}
        )
    )


def resume(folder: Path) -> dict[str, Any]:
    """Seconds from opening an interrupted run, the input read and compared, to its first new result."""
    source = log(folder, LONG)
    out = folder / f"memory{LONG}"
    if not out.exists():
        audit_in_own_process(str(folder), LONG)
    parts = -(-LONG // PART)
    for part in range(int(0.9 * parts), parts):
        (out / RESULTS / part_name(part)).unlink(missing_ok=True)
    begin = time.perf_counter()
    run = start(Prompts(source.path), stand_in(), out)
    opened = time.perf_counter() - begin
    with open_engine("local", run.job) as engine:
        next(run.steps(engine))
    return {"rows kept": run.kept, "seconds to open": opened, "seconds to first": time.perf_counter() - begin}


def first(folder: Path) -> dict[str, Any]:
    """Seconds from the start of the command to its first events."""
    source, out = log(folder, 2 * PART), folder / "first"
    command = [sys.executable, "-m", "cryptomnesia.cli", "audit", "prompts", "--json"]
    begin, found = time.perf_counter(), {}
    with subprocess.Popen([*command, "-i", source.path, "-o", out], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            event, now = json.loads(line), time.perf_counter() - begin
            if event["event"] == "progress":
                found.setdefault("seconds to first result", now)
            if (out / RESULTS / part_name(0)).exists():
                found["seconds to first part on disk"] = now
                break
        process.terminate()
    return {"rows of a part": PART, **found}


def parts(folder: Path, options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part that was asked for, as it is done."""
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "overhead": lambda: overhead(folder, options.rows, options.rounds),
        "ray": lambda: on_ray(folder, 2 * options.rows, options.rounds),
        "memory": lambda: memory(folder),
        "resume": lambda: resume(folder),
        "first": lambda: first(folder),
    }
    for name, work in works.items():
        if not options.only or name in options.only:
            yield name, work()


def main() -> None:
    options = arguments(
        __doc__,
        only={"nargs": "*", "help": "overhead, ray, memory, resume, first; all by default"},
        rows={"type": int, "default": 192, "help": "prompts of a run on the built-in model"},
        rounds={"type": int, "default": 3},
    )
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    document = {}
    if options.only and (STORED / "audit.json").exists():
        document = {name: value for name, value in stored("audit").items() if name != "about"}
    folder = Path(tempfile.mkdtemp())
    try:
        for name, found in parts(folder, options):
            document[name] = found
            print(name)
            table(["", ""], [[key, value] for key, value in found.items()])
            store("audit", document)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
