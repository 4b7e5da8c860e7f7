"""JSON for machines: one document per call, or one line per result where a command may have very many.

Whatever is asked of, `--json` writes one document. A command with several results puts them under "results" as they
come, and what they amount to under "summary"; the document is valid even if the command is stopped.
"""

import json
import sys
from types import TracebackType
from typing import Any

from ..errors import InputError


def write_document(document: Any) -> None:
    """Writes the one document of a command that has all of it at once."""
    sys.stdout.write(json.dumps(document) + "\n")


class Results:
    """Writes results as they come, as a document or as lines; nothing at all if there are none.

    Args:
        schema: The name of the document's schema.
        lines: Whether to write a line per result, without schema and summary.
    """

    def __init__(self, schema: str, *, lines: bool = False):
        self.schema, self.lines, self.count = schema, lines, 0
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> "Results":
        return self

    def add(self, result: Any) -> None:
        """Writes one more result."""
        start = "" if self.lines else ",\n" if self.count else f'{{"schema": {json.dumps(self.schema)}, "results": [\n'
        sys.stdout.write(start + json.dumps(result) + ("\n" if self.lines else ""))
        sys.stdout.flush()
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lines or not self.count or isinstance(error, BrokenPipeError):
            return
        summary = self.summary | {"complete": error is None}
        sys.stdout.write(f'\n], "summary": {json.dumps(summary)}}}\n')


def check_formats(as_json: bool, as_lines: bool) -> None:
    """Raises InputError if both were asked for."""
    if as_json and as_lines:
        raise InputError("--json and --jsonl exclude each other: one document, or a line per result")
