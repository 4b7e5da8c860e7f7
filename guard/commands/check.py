"""`cryptomnesia check`: is the model likely to recite training data for these prompts?"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import options
from .console import (
    EXIT_CLEAR,
    EXIT_MEMORIZED,
    EXIT_STOPPED,
    VERDICT_WIDTH,
    p_text,
    progress,
    stderr,
    stdout,
    verdict_text,
)
from .models import open_guard
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..report import MemorizationReport

ROWS_PER_DRAW = 4  # two timesteps, two branches


def check(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPTS]...", help="Prompts to check.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Prompts: .txt, .csv, .tsv, .json, .jsonl or .parquet, also .gz of these, or - for stdin.",
        ),
    ] = None,
    format: options.Format = None,
    column: options.Column = "prompt",
    delimiter: options.Delimiter = None,
    model: options.Model = "demo",
    calibration: options.CalibrationFile = None,
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Noise draws; by default as calibrated, else 4.")
    ] = None,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of the network per call; fewer need less memory.")] = 256,
    as_json: options.Json = False,
) -> int:
    """Is the model likely to recite training data for these prompts? Nothing is sampled to find out.

    Exit code: 0 none is likely memorized (or no calibration, so no verdict), 3 some are, 2 bad input.
    """
    source = PromptSource(prompts or [], file, format, column, delimiter)
    guard, draws = open_guard(model, calibration, alpha, draws, (height, width))
    chunk = max(1, batch_rows // (ROWS_PER_DRAW * draws))
    reports = guard.check_many(source, seed=seed, draws=draws, height=height, width=width, chunk=chunk)
    tally = Tally()
    try:
        _show(tally.watch(reports), source.total, as_json)
    except KeyboardInterrupt:
        stderr().print(f"stopped after {tally.total} prompts", style="yellow")
        return EXIT_STOPPED
    source.tell()
    for line in tally.lines(guard.calibration is not None):
        stderr().print(line, soft_wrap=True)
    return EXIT_MEMORIZED if tally.counts.get("memorized") else EXIT_CLEAR


@dataclass
class Tally:
    """Counts verdicts as reports pass by; keeps p-values only, for the joint test at the end."""

    counts: dict[str, int] = field(default_factory=dict)
    p_values: list[float] = field(default_factory=list)
    alpha: float = 0.0
    reason: str | None = None

    @property
    def total(self) -> int:
        """Reports so far."""
        return sum(self.counts.values())

    def watch(self, reports: Iterable["MemorizationReport"]) -> Iterator["MemorizationReport"]:
        """Passes the reports on, counting them."""
        for report in reports:
            self.counts[report.verdict] = self.counts.get(report.verdict, 0) + 1
            self.reason = report.reason or self.reason
            if report.p_value is not None and report.alpha is not None:
                self.p_values.append(report.p_value)
                self.alpha = report.alpha
            yield report

    def lines(self, calibrated: bool) -> Iterator[Text]:
        """What the prompts amount to together, and what to do next."""
        if self.counts.get("not applicable"):
            yield Text(f"no verdict for {self.counts['not applicable']} of {self.total}: {self.reason}", style="yellow")
        if self.counts.get("uncalibrated") and not calibrated:
            yield Text(
                "no verdict without a calibration: run `cryptomnesia calibrate --model MODEL --out FILE` once, "
                "then give it as --calibration FILE",
                style="yellow",
            )
        if self.p_values:
            flagged = self.counts.get("memorized", 0)
            yield Text(
                f"{flagged} of {len(self.p_values)} likely memorized, at a false-alarm rate of {self.alpha:g} each"
            )
        if len(self.p_values) > 1:
            from ..calibration import benjamini_hochberg

            kept = sum(benjamini_hochberg(self.p_values, self.alpha))
            yield Text(
                f"taken together: {kept} stand out with an expected share of false alarms among them "
                f"of at most {self.alpha:g} (Benjamini-Hochberg)"
            )


def _show(reports: Iterator["MemorizationReport"], total: int | None, as_json: bool) -> None:
    """Each report as it comes: a JSON line, or a table row; a bar on stderr meanwhile."""
    with progress("prompts") as bar:
        task = bar.add_task("checking", total=total)
        console = stdout()
        for number, report in enumerate(reports):
            if as_json:
                sys.stdout.write(json.dumps(report.to_dict()) + "\n")
                sys.stdout.flush()
            else:
                _show_row(console, report, first=number == 0)
            bar.advance(task)


def _show_row(console: Console, report: "MemorizationReport", *, first: bool) -> None:
    """One row of a table whose columns are of fixed width, so that it can grow for as long as prompts come."""
    if first:
        _grid(console, Text("verdict"), Text("p-value"), Text("score"), Text("prompt"), style="bold")
    score = "-" if report.score is None else f"{report.score:.2f}"
    prompt = Text(" ".join((report.prompt or "").split()))
    if report.note:
        prompt.append(f"  ({report.note})", style="dim")
    _grid(console, verdict_text(report.verdict), Text(p_text(report.p_value)), Text(score), prompt)


def _grid(console: Console, verdict: Text, p_value: Text, score: Text, prompt: Text, style: str = "") -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=VERDICT_WIDTH)
    grid.add_column(width=7, justify="right")
    grid.add_column(width=8, justify="right")
    grid.add_column(overflow="fold")
    grid.add_row(verdict, p_value, score, prompt, style=style)
    console.print(grid)
