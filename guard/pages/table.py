"""A table of very many rows inside a page: what audit.js needs, as HTML and as data.

Numbers stand in the page as arrays in base64. Texts stand there as well, or in scripts beside it where they are many.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .escape import escape

CHUNK = 1_000  # texts in one script
CUT = 1_000  # characters of a text that are shown
KINDS = {"f32": "<f4", "u32": "<u4", "u8": "u1"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key, label: Its name in the data, and above it; without a label it is not shown.
        values: (N,) in the order of the rows; NaN = missing; numbers of words where it has words.
        kind: What it is sent as: "f32", "u32" or "u8".
        shown: How numbers are written: "p" as p-values, "whole", with two ("score") or three ("fine") decimals.
        words: What it holds, if it is of words.
        looks: Class that colours each word: "memorized", "clear", "other" or "plain".
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


@dataclass(frozen=True)
class Table:
    """Rows in the order in which they are shown first.

    Attributes:
        name: Above the texts: "prompt" or "file".
        rows: How many, N.
        columns: What is known of each. "cluster" holds the number of the row that stands for each, "adjusted" its
            adjusted p-value; both may be missing.
        before: How many of the shown columns stand before the texts.
        level: False discovery rate at which a row stands.
        texts: (N), where they stand in the page.
        folder: Where the scripts with the texts lie, relative to the page; otherwise.
    """

    name: str
    rows: int
    columns: Sequence[Column]
    level: float
    before: int = 1
    texts: Sequence[str] | None = None
    folder: str | None = None

    def column(self, key: str) -> Column | None:
        """By its name, if it is there."""
        return next((column for column in self.columns if column.key == key), None)


def cut(text: str) -> str:
    """A text as the table shows it."""
    return text if len(text) <= CUT else f"{text[:CUT]}… [{len(text):,} characters]"


def literal(value: Any) -> str:
    """JSON that is safe inside a script element and as JavaScript: ASCII, and no character that HTML minds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def script_name(number: int) -> str:
    """Of the script with texts number * CHUNK and on."""
    return f"texts-{number:05d}.js"


def script(first: int, texts: Sequence[str]) -> str:
    """A script that hands over the texts of the rows from `first` on."""
    return f"auditTexts({first},{literal([cut(text) for text in texts])});\n"


def data(table: Table) -> str:
    """The element that audit.js reads."""
    columns = [
        {
            "key": column.key,
            "kind": column.kind,
            "shown": column.shown,
            "words": list(column.words) or None,
            "looks": list(column.looks) or None,
            "data": base64.b64encode(np.asarray(column.values).astype(KINDS[column.kind]).tobytes()).decode("ascii"),
        }
        for column in table.columns
    ]
    value = {
        "rows": table.rows,
        "columns": columns,
        "level": table.level * (1 + 1e-6),  # adjusted p-values are sent with seven digits
        "chunk": CHUNK,
        "folder": table.folder,
        "texts": None if table.texts is None else [cut(text) for text in table.texts],
    }
    return f'<script type="application/json" id="audit-data">{literal(value)}</script>'


def render(table: Table) -> str:
    """The filters, the table, which audit.js fills, and the pages."""
    heads = [_head(column) for column in table.columns if column.label]
    heads.insert(table.before, f'<th data-key="text" scope="col">{escape(table.name)}</th>')
    return (
        f"{_filters(table)}\n"
        f'<div class="panel rows"><table id="rows"><caption class="unseen">{escape(table.name)}s with their numbers'
        f"</caption><thead><tr>{''.join(heads)}</tr></thead><tbody></tbody></table></div>\n{_PAGES}"
    )


def _head(column: Column) -> str:
    first = "up" if column.upwards else "down"
    kind = f"{'word' if column.words else 'number'}{' spare' if column.spare else ''}"
    return (
        f'<th class="{kind}" data-key="{escape(column.key)}" data-first="{first}" scope="col">'
        f'<button type="button">{escape(column.label)}</button></th>'
    )


def _filters(table: Table) -> str:
    parts = [
        f'<label class="search">Search <input type="search" id="search" placeholder="words of the {escape(table.name)}"'
        ' autocomplete="off" spellcheck="false"></label>'
    ]
    parts += [_choice(column) for column in table.columns if column.words and column.label]
    if table.column("adjusted") is not None:
        parts.append(_box("stands", f"stands at a false discovery rate of {100 * table.level:g} %"))
    if table.column("cluster") is not None:
        parts.append(_box("once", "near-identical ones once"))
        parts.append('<button type="button" id="group" hidden>✕ near-identical to one; show all</button>')
    return f'<form class="filters" role="search">{"".join(parts)}</form>\n<p id="status" role="status"></p>'


def _choice(column: Column) -> str:
    counts = np.bincount(column.values[column.values < len(column.words)].astype(int), minlength=len(column.words))
    options = "".join(
        f'<option value="{i}">{escape(word)} ({count:,})</option>'
        for i, (word, count) in enumerate(zip(column.words, counts, strict=True))
    )
    return (
        f'<label>{escape(column.label.capitalize())} <select data-words="{escape(column.key)}" autocomplete="off">'
        f'<option value="">all</option>{options}</select></label>'
    )


def _box(key: str, words: str) -> str:
    return f'<label class="box"><input type="checkbox" data-only="{key}" autocomplete="off"> {escape(words)}</label>'


_TURNS = (
    ("first", "⇤", "first page"),
    ("back", "←", "page before"),
    ("on", "→", "next page"),
    ("last", "⇥", "last page"),
)
_BUTTONS = [
    f'<button type="button" data-turn="{turn}" aria-label="{words}" title="{words}">{sign}</button>'
    for turn, sign, words in _TURNS
]
_PAGES = (
    f'<nav class="pages" aria-label="pages of the table">{"".join(_BUTTONS[:2])}'
    '<label>page <input type="number" id="page" min="1" value="1" autocomplete="off"></label> <span id="pages"></span>'
    f"{''.join(_BUTTONS[2:])}</nav>"
)
