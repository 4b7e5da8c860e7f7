"""The fenced blocks of a Markdown file, with what hidden comments in front of them say about running them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ("python", "sh")  # the rest is shown, not run
SHOWN = ("text", "markdown", "json", "yaml")
_FENCE = re.compile(r"^```(\S*)\s*$")
_NOTE = re.compile(r"^<!-- (\w+): (.*?) -->$")


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        where: FILE:LINE of its first line, for messages.
        language: As after the fence.
        text: Its lines.
        notes: `<!-- name: value -->` lines right before the fence, by name:
            exit: the exit code of the last command, where it is not 0;
            needs: names of files that the reader has and the test makes;
            file: the block is that file of the project, written into a copy of it;
            after, in: the block goes into that file of the copy, behind the line that is named.
    """

    where: str
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """Of a shell block: its commands, each on one line, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def snippets(path: Path) -> list[Snippet]:
    """All fenced blocks of a file, in order."""
    found: list[Snippet] = []
    notes: dict[str, str] = {}
    language: str | None = None
    block: list[str] = []
    start = 0
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fence, note = _FENCE.match(line), _NOTE.match(line)
        if language is not None and line == "```":
            where = f"{path.relative_to(ROOT)}:{start}"
            found.append(Snippet(where, language, "\n".join(block) + "\n", notes))
            notes, language, block = {}, None, []
        elif language is not None:
            block.append(line)
        elif fence:
            language, start = fence.group(1), number + 1
        elif note:
            notes = {**notes, note.group(1): note.group(2)}
        else:
            notes = {}
    return found


def documents() -> list[Path]:
    """The Markdown files that readers are sent to: README and its kin, and docs/ but for the API reference."""
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
    return [*named, *sorted((ROOT / "docs").glob("*.md"))]
