"""What flows through an audit: rows of the input, and what became of them."""

from dataclasses import dataclass, field
from typing import Any

from ..prompts.rows import EXCERPT, Reject, Row, excerpt, reject

__all__ = ["EXCERPT", "PART", "Done", "Reject", "Row", "excerpt", "reject"]

PART = 128  # rows that are checked and kept together


@dataclass
class Done:
    """What became of a batch: one record per measured row, and the rejects; in any order."""

    records: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.rejects)

    def __add__(self, other: "Done") -> "Done":
        return Done(self.records + other.records, self.rejects + other.rejects)
