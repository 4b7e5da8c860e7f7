"""What flows through an audit: rows of the input, and what became of them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

EXCERPT = 200  # characters


class Row(NamedTuple):
    """One prompt or one image, and its 0-based position in the input."""

    row: int
    value: str


class Reject(NamedTuple):
    """A row that could not be measured, why, and how its content begins."""

    row: int
    reason: str
    excerpt: str


@dataclass
class Done:
    """What became of a batch: one record per measured row, and the rejects; in any order."""

    records: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.rejects)

    def __add__(self, other: "Done") -> "Done":
        return Done(self.records + other.records, self.rejects + other.rejects)


def reject(row: Row, reason: object) -> Reject:
    """The row with a reason of one line."""
    return Reject(row.row, " ".join(str(reason).split()), excerpt(row.value))


def excerpt(value: object) -> str:
    """The beginning of a value that can be shown and stored, whatever it is."""
    text = value if isinstance(value, str) else repr(value)
    return text[:EXCERPT].encode("utf-8", "replace").decode()
