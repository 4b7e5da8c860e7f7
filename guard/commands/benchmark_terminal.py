"""How a benchmark looks on a terminal: while it goes on, and in the end."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from .calibrate import duration
from .console import progress, stderr, stdout


def show(document: dict[str, Any], page: Path) -> None:
    """Prints what the report says, in a few lines, and where the page is."""
    console = stdout()
    console.print(f"at a promised false-alarm rate of {document['alpha']:g}:")
    for group in document["groups"]:
        share = group["share"]
        what = "flagged" if group["memorized"] else "false alarms"
        console.print(
            f"  {group['name']}: {group['flagged']} of {group['prompts']} {what}, {100 * share['value']:.3g} % "
            f"({100 * share['low']:.3g} to {100 * share['high']:.3g})"
        )
    table = Table("memorized", "next to", *(method["name"] for method in document["methods"]), box=None)
    for pair in document["pairs"]:
        cells = [f"{rates['auc']['value']:.3f} / {rates['tpr']['value']:.2f}" for rates in pair["methods"].values()]
        table.add_row(Text(pair["memorized"]), Text(pair["negatives"]), *cells)
    console.print("AUC / true positives at 1 % false positives:")
    console.print(table)
    if document["generated"] is not None:
        for kind in document["generated"]["kinds"]:
            console.print(f"really reproduced: {kind['reproduced']} of {kind['prompts']} prompts of {kind['name']}")
    console.print(f"the page: {page}", soft_wrap=True)


def watch(steps: Iterator[int], what: str, before: int, total: int) -> None:
    """Runs through the steps with a bar; says after the first of them how long the rest will take."""
    started, told = time.monotonic(), False
    with progress("prompts") as bar:
        task = bar.add_task(what, total=total, completed=before)
        for done in steps:
            bar.update(task, completed=done)
            if not told and done < total:
                seconds = (time.monotonic() - started) / (done - before) * (total - done)
                stderr().print(f"{what}: at this speed, {duration(seconds)} more", soft_wrap=True)
                told = True
