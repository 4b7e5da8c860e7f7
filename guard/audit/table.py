"""A table of very many rows inside a page: the data that table.js fills table.html with.

Numbers stand in the page as arrays in base64. Texts stand there as well, or in scripts beside it where they are many.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

CHUNK = 1_000  # texts in one script
CUT = 1_000  # characters of a text that are shown
KINDS = {"f32": "<f4", "u32": "<u4", "u8": "u1"}


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        key, label: The column's name in the data, and the one above it; without a label it is not shown.
        values: (N,) in the order of the rows; NaN = missing; numbers of words where it has words.
        kind: Type of number that values are sent as: "f32", "u32" or "u8".
        shown: How numbers are written: "p" as p-values, "whole", with two ("score") or three ("fine") decimals.
        words: The words that it holds, if it is of words.
        looks: The class that colours each word: "memorized", "clear", "other" or "plain".
        upwards: Whether the first click on it puts the smallest on top.
        spare: Whether small screens leave it out.
    """

    key: str
    label: str
    values: NDArray[Any]
    kind: Literal["f32", "u32", "u8"]
    shown: Literal["p", "whole", "score", "fine"] = "score"
    words: Sequence[str] = ()
    looks: Sequence[str] = ()
    upwards: bool = False
    spare: bool = False

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Each word, and how many rows have it."""
        known = self.values[self.values < len(self.words)].astype(int)
        return list(zip(self.words, np.bincount(known, minlength=len(self.words)).tolist(), strict=True))

    @property
    def data(self) -> dict[str, Any]:
        """What table.js reads."""
        return {
            "key": self.key,
            "kind": self.kind,
            "shown": self.shown,
            "words": list(self.words) or None,
            "looks": list(self.looks) or None,
            "data": base64.b64encode(np.asarray(self.values).astype(KINDS[self.kind]).tobytes()).decode("ascii"),
        }


@dataclass(frozen=True)
class Table:
    """Rows in the order in which they are shown first.

    Attributes:
        name: Heading of the texts: "prompt" or "file".
        rows: Number of rows, N.
        columns: Columns beside the texts. "cluster" holds the number of the row that represents each, "adjusted" its
            adjusted p-value; both may be missing.
        before: How many of the shown columns stand before the texts.
        level: False discovery rate at which rows are rejected.
        texts: The N texts, where they stand in the page; else None.
        folder: Where the scripts with the texts lie, relative to the page, where texts do not stand in it; else None.
    """

    name: str
    rows: int
    columns: Sequence[Column]
    level: float
    before: int = 1
    texts: Sequence[str] | None = None
    folder: str | None = None

    def has(self, key: str) -> bool:
        """Returns whether there is a column of that name."""
        return any(column.key == key for column in self.columns)

    @property
    def shown(self) -> list[Column]:
        """The columns that are shown."""
        return [column for column in self.columns if column.label]

    @property
    def data(self) -> Markup:
        """What table.js reads, as JSON that is safe inside a script element."""
        value = {
            "rows": self.rows,
            "columns": [column.data for column in self.columns],
            "level": self.level * (1 + 1e-6),  # adjusted p-values are sent with seven digits
            "chunk": CHUNK,
            "folder": self.folder,
            "texts": None if self.texts is None else [cut(text) for text in self.texts],
        }
        return Markup(literal(value))


def cut(text: str) -> str:
    """Returns a text as the table shows it: cut after CUT characters, with its length."""
    return text if len(text) <= CUT else f"{text[:CUT]}… [{len(text):,} characters]"


def literal(value: Any) -> str:
    """Returns JSON that is safe inside a script element and as JavaScript: ASCII, and no special character of HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def script_name(number: int) -> str:
    """Returns the file name of the script with texts number * CHUNK and on."""
    return f"texts-{number:05d}.js"


def script(first: int, texts: Sequence[str]) -> str:
    """Returns a script that hands over the texts of the rows from `first` on."""
    return f"auditTexts({first},{literal([cut(text) for text in texts])});\n"
