"""Results on many prompts as one table: a picture, plain text, and CSV that spreadsheets open as it is."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..guard.drawing import INK, LINE, MARGIN, PAPER, SOFT, blank, colours, cut, write
from ..guard.printable import printable, printable_line

COLUMNS = ("prompt", "score", "p_value", "verdict", "reason")
MOST = 60  # rows of a picture; the CSV has them all
ROW, HEAD = 26, 56
WIDTH = 900
COLOURS = {"memorized": (179, 38, 30), "clear": (46, 125, 50)}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets would run


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> bytes:
    """Returns rows as CSV in UTF-8 with a mark; a text that a spreadsheet would take for a formula gets a ' before."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return ("\ufeff" + file.getvalue()).encode()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """Returns how many prompts had which verdict, and a line for each, the most suspicious first."""
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in dict.fromkeys(_verdicts(rows))}
    head = f"{len(rows)} prompts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines = [
        f"{_number(row['p_value']):>8}  {row['verdict']:<14}  {printable_line(row['prompt'])}" for row in _sorted(rows)
    ]
    return "\n".join([head, f"{'p':>8}  {'verdict':<14}  prompt", *lines])


def picture(rows: Sequence[dict[str, Any]]) -> Any:
    """Returns the table as a Pillow image, the most suspicious prompts first."""
    shown = _sorted(rows)[:MOST]
    left = len(rows) - len(shown)
    image, draw = blank(WIDTH, HEAD + ROW * (len(shown) + bool(left)) + MARGIN)
    places = {"verdict": MARGIN, "p": 180, "score": 260, "prompt": 340}
    for name, x in places.items():
        write(draw, (x, HEAD - 12), name, 13, SOFT, "lm")
    draw.line([(MARGIN, HEAD), (WIDTH - MARGIN, HEAD)], LINE)
    for number, row in enumerate(shown):
        y = HEAD + ROW * number + ROW // 2 + 2
        colour = COLOURS.get(row["verdict"], SOFT)
        draw.rectangle([MARGIN, y - 9, MARGIN + 4, y + 9], fill=colour)
        write(draw, (MARGIN + 12, y), row["verdict"], 14, colour, "lm")
        write(draw, (places["p"], y), _number(row["p_value"]), 14, INK, "lm")
        write(draw, (places["score"], y), _number(row["score"]), 14, INK, "lm")
        room = WIDTH - MARGIN - places["prompt"]
        write(draw, (places["prompt"], y), _fitting(row["prompt"], room, 14), 14, INK, "lm")
    if left:
        write(draw, (MARGIN, HEAD + ROW * len(shown) + ROW // 2), f"and {left} more in the CSV file", 14, SOFT, "lm")
    return image


def heat(names: Sequence[str], prompts: Sequence[str], scores: np.ndarray, marks: Sequence[Sequence[str]]) -> Any:
    """Returns scores as a heat table: a row per prompt, a column per model, one scale of colours for all.

    Args:
        names: The columns' names.
        prompts: The rows' prompts; the first MOST of them are drawn.
        scores: (prompts, columns), NaN where there is none; higher = more likely memorized.
        marks: What is written in each cell.
    """
    shown, words, cell = min(len(prompts), MOST), 330, 118
    image, draw = blank(words + cell * len(names) + 2 * MARGIN, HEAD + ROW * (shown + 1) + 2 * MARGIN)
    known = scores[np.isfinite(scores)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    for column, name in enumerate(names):
        x = MARGIN + words + cell * column
        first, _, strength = printable(name, 80).rpartition(" ")
        for line, y in ((first or strength, HEAD - 26), (strength if first else "", HEAD - 10)):
            write(draw, (x + cell // 2, y), cut(line, cell - 8, 12), 12, SOFT, "mm")
    for row in range(shown):
        y = HEAD + ROW * row
        write(draw, (MARGIN, y + ROW // 2), _fitting(prompts[row], words - 12, 13), 13, INK, "lm")
        for column in range(len(names)):
            x, score = MARGIN + words + cell * column, float(scores[row, column])
            share = (score - low) / max(high - low, 1e-12)
            fill = tuple(int(v) for v in colours(np.array(share))) if math.isfinite(score) else PAPER
            draw.rectangle([x, y, x + cell - 2, y + ROW - 2], fill=fill)
            ink = INK if share > 0.6 or not math.isfinite(score) else PAPER
            write(draw, (x + cell // 2, y + ROW // 2), marks[row][column], 13, ink, "mm")
    left = len(prompts) - shown
    more = f"; {left} more prompts in the CSV file" if left else ""
    note = f"score, {low:.3g} (dark) to {high:.3g} (light); higher: more likely memorized; ! = likely memorized{more}"
    write(draw, (MARGIN, HEAD + ROW * shown + ROW), note, 12, SOFT, "lm")
    return image


def _fitting(text: str, room: int, size: int) -> str:
    """Returns as much of a text as has room, on one line; of long ones only their beginning is measured."""
    return cut(printable(text, room // 5), room, size)


def _sorted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -math.inf if row["score"] is None else row["score"], reverse=True)


def _verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted((row["verdict"] for row in rows), key=lambda verdict: list((*COLOURS, verdict)).index(verdict))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
