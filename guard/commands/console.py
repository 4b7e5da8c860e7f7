"""What all commands share towards the user: exit codes, consoles, how a verdict looks, progress."""

import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from ..printable import blanked, printable_line
from ..progress import Progress as Callback

# the same in every command, and in README
EXIT_CLEAR = 0  # asked, and clear; intact, and vouched for
EXIT_BAD_INPUT = 2  # bad input, or it cannot be told
EXIT_MEMORIZED = 3  # something was found
EXIT_CHANGED = 4  # it does not match
EXIT_NO_VERDICT = 5  # uncalibrated or not applicable; nobody vouches for it
EXIT_STOPPED = 130
EXIT_NOBODY_READS = 141  # as the shell says of what SIGPIPE ended
_LOOKS = {
    "memorized": ("▲ likely memorized", "bold red"),
    "clear": ("✓ clear", "green"),
    "uncalibrated": ("? uncalibrated", "yellow"),
    "not applicable": ("– not applicable", "dim"),
}
VERDICT_WIDTH = max(len(words) for words, _ in _LOOKS.values())


class PlainConsole(Console):
    """The one way to the terminal.

    Text is shown as it is: nothing in it is markup, and what a terminal would obey, such as an escape, a line end or a
    right-to-left mark in a prompt or a file's name, becomes a space.
    """

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as rich does; all text comes through here, also that of tables and bars, and is made printable."""
        if isinstance(renderable, str):
            renderable = Text(renderable)
        if isinstance(renderable, Text):
            clean = renderable.copy()
            clean.plain = blanked(renderable.plain)
            renderable = clean
        return super().render(renderable, options)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError again: the reader has seen enough, and `cli.main` knows what to do."""
        raise


def stdout() -> PlainConsole:
    """Returns the console for results; as wide as needed when it is no terminal, so that no prompt is cut."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=10_000)


def stderr() -> PlainConsole:
    """Returns the console for progress, hints and errors."""
    return PlainConsole(stderr=True)


def fail(message: str) -> None:
    """Writes one plain line on stderr, however long and whatever it quotes."""
    sys.stderr.write(f"cryptomnesia: {printable_line(message)}\n")


def exit_code(verdicts: Collection[str]) -> int:
    """Returns the exit code of a command that gave these verdicts; "memorized" wins over a missing verdict."""
    if "memorized" in verdicts:
        return EXIT_MEMORIZED
    return EXIT_NO_VERDICT if set(verdicts) & {"uncalibrated", "not applicable"} else EXIT_CLEAR


def membership_exit(verdict: str) -> int:
    """Returns the exit code of a verdict of membership."""
    from ..membership import LIKELY, UNDECIDED

    if verdict == LIKELY:
        return EXIT_MEMORIZED
    return EXIT_NO_VERDICT if verdict in UNDECIDED else EXIT_CLEAR


def verdict_text(verdict: str) -> Text:
    """Returns the verdict in words, with a sign and a colour."""
    words, style = _LOOKS.get(verdict, (verdict, ""))
    return Text(words, style=style)


def p_text(p_value: float | None) -> str:
    """Returns a p-value to three digits, "-" without one."""
    return "-" if p_value is None else f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1e}"


class Rate(ProgressColumn):
    """A column that tells how many are done per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "", style="dim")


def progress(unit: str) -> Progress:
    """Returns a bar for the terminal with rate and time left; lines printed there meanwhile appear above it."""
    console = stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn(unit),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=False,
    )


def following(bar: Progress, task: TaskID) -> Callback:
    """Returns a function that moves the bar of a task, to be called as `progress(done, total)`."""
    return lambda done, total: bar.update(task, completed=done, total=total)


def tell_cost(work: str, rows: int, images: float, beside: str = "") -> None:
    """Says what work will cost before it begins, in a line on stderr.

    Args:
        work: What is done, as the line's subject, e.g. "20 images".
        rows: Rows of the network.
        images: As many images of 50 steps as that; see `cost`.
        beside: What it takes besides, as the line's end.
    """
    from ..cost import in_words

    stderr().print(f"{work} will cost {in_words(rows, images)}{beside}", soft_wrap=True)


def waiting(message: str) -> AbstractContextManager[object]:
    """Returns a context in which a terminal says what is being waited for."""
    console = stderr()
    return console.status(Text(message)) if console.is_terminal else nullcontext()
