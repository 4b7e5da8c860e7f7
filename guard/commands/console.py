"""What all commands share towards the user: exit codes, consoles, how a verdict looks, progress."""

import sys
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..printable import printable_line

# the same in every command, and in README
EXIT_CLEAR = 0  # asked, and clear; intact, and vouched for
EXIT_BAD_INPUT = 2  # bad input, or it cannot be told
EXIT_MEMORIZED = 3  # something was found
EXIT_CHANGED = 4  # it does not match
EXIT_NO_VERDICT = 5  # uncalibrated or not applicable; nobody vouches for it
EXIT_STOPPED = 130
_LOOKS = {
    "memorized": ("▲ likely memorized", "bold red"),
    "clear": ("✓ clear", "green"),
    "uncalibrated": ("? uncalibrated", "yellow"),
    "not applicable": ("– not applicable", "dim"),
}
VERDICT_WIDTH = max(len(words) for words, _ in _LOOKS.values())


def stdout() -> Console:
    """Results go here; as wide as needed when it is not a terminal, so that no prompt is cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def stderr() -> Console:
    """Progress, hints and errors go here."""
    return Console(stderr=True, highlight=False)


def fail(message: str) -> None:
    """One plain line on stderr, however long and whatever it quotes."""
    sys.stderr.write(f"cryptomnesia: {printable_line(message)}\n")


def verdict_text(verdict: str) -> Text:
    """The verdict in words, with a sign and a colour."""
    words, style = _LOOKS.get(verdict, (verdict, ""))
    return Text(words, style=style)


def p_text(p_value: float | None) -> str:
    """A p-value to three digits, "-" without one."""
    return "-" if p_value is None else f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1e}"


class Rate(ProgressColumn):
    """How many per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "", style="dim")


def progress(unit: str) -> Progress:
    """A bar on a terminal with rate and time left; lines printed there meanwhile appear above it."""
    console = stderr()
    return Progress(
        TextColumn("{task.description}"),
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


def waiting(message: str) -> AbstractContextManager[object]:
    """Says on a terminal what is being waited for."""
    console = stderr()
    return console.status(message) if console.is_terminal else nullcontext()
