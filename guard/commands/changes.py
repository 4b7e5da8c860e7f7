"""One mitigated prompt on the terminal: both texts, the words that were changed, the numbers before and after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .console import p_text, verdict_text

if TYPE_CHECKING:
    from ..mitigation.result import Mitigation
    from ..pages.marks import Piece
    from .rewrite_cases import Case

REMOVED, ADDED = "bold red strike", "bold green underline"


def show(console: Console, case: "Case") -> None:
    """Prints what the check said and, if it was mitigated, how."""
    about = case.mitigation
    console.print(_verdict(case), soft_wrap=True)
    if case.report.note:
        _indented(console, Text(f"({case.report.note})", style="dim"))
    if about is None:
        _indented(console, _outcome(case, "green"))
        return
    _indented(console, _texts(case.prompt, about.rewritten or case.prompt))
    for table in [_words(about)] * bool(about.words) + [_numbers(case, about)]:
        console.print()
        _indented(console, table)
    console.print()
    _indented(console, _outcome(case, "bold green" if about.held else "bold red"))
    rows = f"{about.forward_rows} rows asked of the network, {about.backward_rows} of them with a gradient"
    _indented(console, Text(rows, style="dim"))


def _indented(console: Console, shown: Text | Table) -> None:
    console.print(Padding(shown, (0, 0, 0, 2), expand=False))


def _verdict(case: "Case") -> Text:
    report = case.report
    score = "-" if report.score is None else f"{report.score:.2f}"
    line = verdict_text(report.verdict)
    line.append(f"  p-value {p_text(report.p_value)}, score {score}", style="default not bold")
    return line if case.mitigation else line.append(f": {case.prompt}", style="default not bold")


def _outcome(case: "Case", style: str) -> Text:
    title, sentence = case.outcome
    return Text.assemble((f"{title}: ", style), sentence[:1].lower() + sentence[1:])


def _texts(before: str, after: str) -> Table:
    """Returns both prompts, one above the other, so that equal words stand together."""
    from ..pages.marks import marked

    old, new = marked(before, after)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    if before == after:
        grid.add_row("prompt", Text(before))
        return grid
    grid.add_row("before", _marked(old, REMOVED))
    grid.add_row("after", _marked(new, ADDED))
    return grid


def _marked(pieces: Sequence["Piece"], style: str) -> Text:
    return Text.assemble(*((piece.text, style if piece.changed else "") for piece in pieces))


def _words(about: "Mitigation") -> Table:
    from .rewrite_cases import CHANGES

    table = _table("word", "became", "change", "significance")
    for change in about.words:
        weight = f"{change.significance:.3f}" if change.word else "-"
        table.add_row(Text(change.word or "-"), Text(change.became or "-"), CHANGES[change.kind], weight)
    return table


def _numbers(case: "Case", about: "Mitigation") -> Table:
    table = _table("on fresh noise", "before", "after", right=2)
    (p_before, before), (p_after, after) = case.numbers_before, case.numbers_after
    table.add_row("p-value", p_text(p_before), p_text(p_after))
    table.add_row("score", _number(before), _number(after))
    if case.changed and about.method != "reseed":  # whose prompt stays as it was
        table.add_row("guidance similarity", "1.00", _number(about.recall))
        table.add_row("similarity of the texts", "1.00", _number(about.similarity))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(*names: str, right: int = 1) -> Table:
    """Returns a table without lines; its last columns are numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i >= len(names) - right else "left", overflow="fold")
    return table
