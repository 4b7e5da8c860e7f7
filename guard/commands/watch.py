"""How far an audit is, for people and machines, and what it found in the end."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..progress import Progress
from .console import (
    EXIT_CHANGED,
    EXIT_CLEAR,
    EXIT_MEMORIZED,
    EXIT_NO_VERDICT,
    exit_code,
    following,
    membership_exit,
    progress,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from ..audit.manifest import Manifest
    from ..audit.run import Audit

EVERY = 0.5  # seconds between two events


class Watch:
    """Tells how far a run is: a bar on a terminal, or JSON lines on stdout, or nothing.

    Args:
        run: The audit that is watched.
        quiet: Whether nothing is said before the outcome.
        as_json: Whether to write events for machines: started, progress, stopped, finished.
    """

    def __init__(self, run: "Audit", quiet: bool, as_json: bool):
        self.run, self.quiet, self.as_json = run, quiet, as_json

    @contextmanager
    def counting(self, total: int, before: int) -> Iterator[Callable[[int], None]]:
        """Yields a function to be called with the number of rows done."""
        start = last = time.monotonic()

        def tell(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < EVERY and done < total:
                return
            last, rate = now, (done - before) / max(now - start, 1e-9)
            left = round((total - done) / rate, 1)
            self._event("progress", {"done": done, "rate": round(rate, 3), "seconds_left": left})

        self._event("started", {"done": before})
        if self.quiet or self.as_json:
            yield tell
            return
        kind = self.run.manifest.kind
        with progress(kind) as bar:
            task = bar.add_task(f"auditing {kind}", total=total, completed=before)
            yield lambda done: bar.update(task, completed=done)

    @contextmanager
    def making(self, count: int) -> Iterator[Progress | None]:
        """Yields a function to be called with the numbers of the report's images done and of all."""
        if self.quiet or self.as_json:
            yield None
            return
        with progress("images") as bar:
            yield following(bar, bar.add_task("making the report", total=count))

    def stopping(self) -> None:
        """Says that it will stop."""
        if not self.quiet:
            stderr().print("stopping, once what was begun is measured; again to stop at once", style="yellow")

    def stopped(self) -> None:
        """Says how to go on."""
        self._event("stopped", {"done": self.run.kept})
        words = f"stopped: {self.run.kept} of {self.run.total} rows are kept in {self.run.out}; "
        words += "the same command goes on from there"
        stderr().print(words, style="yellow", soft_wrap=True)

    def outcome(self, report: Path) -> int:
        """Says what the audit found, and returns the exit code."""
        numbers = outcome(self.run.out)
        self._event("finished", {"done": self.run.total, "report": str(report), **numbers})
        if not self.as_json:
            for line in _lines(self.run.manifest, numbers, report):
                stdout().print(line, soft_wrap=True)
        return _code(self.run.manifest.kind, numbers)

    def _event(self, event: str, facts: Mapping[str, Any]) -> None:
        if self.as_json and not (self.quiet and event in ("started", "progress")):
            sys.stdout.write(json.dumps({"event": event, "total": self.run.total, **facts}) + "\n")
            sys.stdout.flush()


@contextmanager
def stopping(run: "Audit", watch: Watch) -> Iterator[None]:
    """Within the block, a first Ctrl-C or SIGTERM lets the run end what it has begun, and a second stops it at once."""

    def heard(*_: object) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stop()
        watch.stopping()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _code(kind: str, numbers: dict[str, Any]) -> int:
    """Returns the exit code of what `outcome` returned."""
    if kind == "prompts":
        if numbers.get("standing"):
            return EXIT_MEMORIZED
        # one prompt alone may be flagged by chance; what has no verdict is still to be told
        return exit_code([verdict for verdict in numbers["verdicts"] or ["not applicable"] if verdict != "memorized"])
    if numbers["unfit"]:
        return EXIT_CHANGED
    membership = (numbers.get("membership") or {}).get("verdict")
    if membership is not None:
        return membership_exit(membership)
    known = set(numbers["sidecars"]) - {"missing"}
    return EXIT_CLEAR if known or numbers["answered"] else EXIT_NO_VERDICT


def outcome(folder: Path) -> dict[str, Any]:
    """Returns the numbers of a finished run.

    They are rows and rejects; for prompts, how many have each verdict and how many stand out; for images, how many have
    a sidecar, do not fit it, or have an answer by a model.
    """
    import numpy as np

    from ..audit.report_images import alarms
    from ..audit.results import Results
    from ..audit.summary import LEVEL
    from ..false_discovery import adjusted, rejected

    results = Results(folder)
    rows = len(results.numbers("row"))
    numbers: dict[str, Any] = {"rows": rows, "rejects": results.run["rows_total"] - rows}
    if results.kind == "prompts":
        numbers["verdicts"] = results.words("verdict").counts()
        p_values = results.numbers("p_value")
        if not np.isnan(p_values).all():
            numbers["standing"], numbers["level"] = int(rejected(adjusted(p_values), LEVEL).sum()), LEVEL
    else:
        numbers["sidecars"] = results.words("sidecar").counts()
        numbers["unfit"] = int(np.count_nonzero(alarms(results)))
        answers = [results.words(name).codes >= 0 for name in ("made_by", "nearest_signature")]
        numbers["answered"] = int(np.count_nonzero(np.any(answers, 0)))
    if results.run.get("membership"):
        numbers["membership"] = results.run["membership"]
    return numbers


def _lines(run: "Manifest", numbers: dict[str, Any], report: Path) -> Iterator[Text]:
    rejects = f", {numbers['rejects']} more could not be (see rejects/)" if numbers["rejects"] else ""
    yield Text(f"{numbers['rows']} {run.kind} measured{rejects}")
    for name in ("verdicts", "sidecars"):
        if numbers.get(name):
            words = {"memorized": "likely memorized"} if name == "verdicts" else {}
            yield Text(f"{name}: " + ", ".join(f"{n} {words.get(word, word)}" for word, n in numbers[name].items()))
    if "standing" in numbers:
        yield Text(
            f"taken together: {numbers['standing']} stand out, of which at most {numbers['level']:.0%} by chance, in "
            "expectation (Benjamini-Hochberg)"
        )
    if run.kind == "prompts" and run.calibration is None:
        yield Text(
            "no verdict without a calibration: run `cryptomnesia calibrate --model MODEL` once, then start anew with "
            "another --out",
            style="yellow",
        )
    if numbers.get("unfit"):
        yield Text(f"{numbers['unfit']} do not fit their sidecar or signature", style="bold red")
    if together := numbers.get("membership"):
        yield Text(f"all images together: {together.get('headline') or together.get('reason')}")
    yield Text(f"report: {report}", style="bold")
