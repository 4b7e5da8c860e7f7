"""`cryptomnesia check`: is the model likely to reproduce training data for these prompts?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import options
from .console import (
    EXIT_STOPPED,
    VERDICT_WIDTH,
    exit_code,
    p_text,
    progress,
    stderr,
    stdout,
    verdict_text,
)
from .documents import Results, check_formats
from .models import open_guard
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..report import MemorizationReport

P_WIDTH, SCORE_WIDTH, LEAST_PROMPT = 7, 8, 20  # letters


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
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    calibration: options.Calibration = "auto",
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Noise draws; by default as calibrated, else 4.")
    ] = None,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    alignment: Annotated[
        bool, typer.Option(help="Also measure aniso, which takes part in no verdict and takes longer.")
    ] = False,
    batch_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows of the network per call; fewer need less memory. By itself, what fits."),
    ] = None,
    as_json: options.Json = False,
    as_lines: options.JsonLines = False,
) -> int:
    """Is the model likely to reproduce training data for these prompts? Nothing is sampled to find out.

    With --json, one document, written as reports come: "results" lists them, "summary" says what they amount to.

    Exit code: 0 all are clear, 3 some are likely memorized, else 5 if some have no verdict, 2 bad input, 130 stopped.
    """
    check_formats(as_json, as_lines)
    compared = options.reference_of(reference)
    source = PromptSource(prompts or [], file, format, column, delimiter)
    guard, draws = open_guard(
        model, calibration, alpha, draws, (height, width), device=device, dtype=dtype, reference=compared
    )
    size = {"height": height, "width": width}
    reports = guard.check_many(source, seed=seed, draws=draws, alignment=alignment, batch_rows=batch_rows, **size)
    tally = Tally()
    try:
        _show(tally, reports, source.total, as_json, as_lines)
    except KeyboardInterrupt:
        stderr().print(f"stopped after {tally.total} prompts", style="yellow")
        return EXIT_STOPPED
    source.tell()
    for line in tally.lines():
        stderr().print(line, soft_wrap=True)
    return exit_code(tally.counts)


@dataclass
class Tally:
    """Counts verdicts as reports pass by, and keeps their p-values for the joint test at the end.

    Attributes:
        counts: The number of reports by verdict.
        p_values: The p-values of the reports that have one.
        alpha: The false-alarm rate of the verdicts; 0 where there are none.
        reason: The last reason given for a missing verdict.
        reference: What the prompts were compared with, where anything was measured.
    """

    counts: dict[str, int] = field(default_factory=dict)
    p_values: list[float] = field(default_factory=list)
    alpha: float = 0.0
    reason: str | None = None
    reference: str | None = None

    @property
    def total(self) -> int:
        """The number of reports so far."""
        return sum(self.counts.values())

    def watch(self, reports: Iterable["MemorizationReport"]) -> Iterator["MemorizationReport"]:
        """Yields the reports as they come, and counts them."""
        for report in reports:
            self.counts[report.verdict] = self.counts.get(report.verdict, 0) + 1
            self.reason = report.reason or self.reason
            self.reference = report.reference or self.reference
            if report.p_value is not None and report.alpha is not None:
                self.p_values.append(report.p_value)
                self.alpha = report.alpha
            yield report

    def summary(self) -> dict[str, Any]:
        """Returns what the prompts amount to together, for machines."""
        return {
            "prompts": self.total,
            "verdicts": self.counts,
            "alpha": self.alpha or None,
            "stand_out": self._rejected() if self.p_values else None,
        }

    def _rejected(self) -> int:
        """Returns how many prompts stand out after Benjamini and Hochberg's correction, at the rate `alpha`."""
        from ..calibration import benjamini_hochberg

        return sum(benjamini_hochberg(self.p_values, self.alpha))

    def lines(self) -> Iterator[Text]:
        """Yields lines for people: what the prompts amount to together, and why some have no verdict."""
        without = self.total - len(self.p_values)
        if self.reference not in (None, "empty branch"):
            yield Text(f"a distilled model: prompts were compared by its {self.reference}", style="dim")
        if without:
            yield Text(f"no verdict for {without} of {self.total}: {self.reason}", style="yellow")
        if self.p_values:
            flagged = self.counts.get("memorized", 0)
            yield Text(
                f"{flagged} of {len(self.p_values)} likely memorized, at a false-alarm rate of {self.alpha:g} each"
            )
        if len(self.p_values) > 1:
            yield Text(
                f"taken together: {self._rejected()} stand out with an expected share of false alarms among them "
                f"of at most {self.alpha:g} (Benjamini-Hochberg)"
            )


def _show(
    tally: Tally, reports: Iterator["MemorizationReport"], total: int | None, as_json: bool, as_lines: bool
) -> None:
    """Shows each report as it comes, as JSON or as a table row, and a bar on stderr meanwhile."""
    with progress("prompts") as bar, Results("cryptomnesia/check/1", lines=as_lines) as results:
        task = bar.add_task("checking", total=total)
        rows = Rows(stdout())
        try:
            for report in tally.watch(reports):
                if as_json or as_lines:
                    results.add(report.to_dict())
                else:
                    rows.add(report)
                bar.advance(task)
        finally:
            results.summary = tally.summary()


class Rows:
    """A table whose columns are of fixed width, so that it can grow for as long as prompts come.

    Where the terminal is too narrow for that, numbers stand above the prompt, which is always shown.
    """

    def __init__(self, console: Console):
        self.console, self.first = console, True
        self.wide = console.width >= VERDICT_WIDTH + P_WIDTH + SCORE_WIDTH + LEAST_PROMPT + 6

    def add(self, report: "MemorizationReport") -> None:
        """Prints a report as one more row."""
        score = "-" if report.score is None else f"{report.score:.2f}"
        prompt = Text(" ".join((report.prompt or "").split()))
        if report.note:
            prompt.append(f"  ({report.note})", style="dim")
        if self.wide:
            if self.first:
                self._grid(Text("verdict"), Text("p-value"), Text("score"), Text("prompt"), style="bold")
            self._grid(verdict_text(report.verdict), Text(p_text(report.p_value)), Text(score), prompt)
        else:
            numbers = Text(f"  p {p_text(report.p_value)}, score {score}", style="dim")
            for line in (verdict_text(report.verdict), numbers, prompt):
                self.console.print(line, overflow="fold")
        self.first = False

    def _grid(self, verdict: Text, p_value: Text, score: Text, prompt: Text, style: str = "") -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=VERDICT_WIDTH)
        grid.add_column(width=P_WIDTH, justify="right")
        grid.add_column(width=SCORE_WIDTH, justify="right")
        grid.add_column(overflow="fold")
        grid.add_row(verdict, p_value, score, prompt, style=style)
        self.console.print(grid)
