"""`cryptomnesia lineage --weights`: descent by weights, where these are at hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .console import EXIT_CLEAR, following, progress, stderr, stdout
from .documents import write_document
from .files import make_folder, write_text
from .models import DEMO

if TYPE_CHECKING:
    from ..lineage.by_weights import Descent

REPORT = "lineage-weights.json"


def by_weights(target: str, pool: Mapping[str, str], out: Path | None, as_json: bool) -> int:
    """Compares weights and shows what they say; kept in a folder where one is named. Returns the exit code.

    Raises InputError as `lineage.descent`.
    """
    from ..lineage.by_weights import descent

    sources = {name: _files(source) for name, source in {"": target, **pool}.items()}
    own = sources.pop("")
    if out is not None:
        make_folder(out)
    with progress("models") as bar:
        task = bar.add_task("comparing weights", total=len(sources))
        answer = descent(own, sources, progress=following(bar, task))
    document = {"schema": "cryptomnesia/lineage-weights/1", **answer.to_dict()}
    if out is not None:
        write_text(out / REPORT, json.dumps(document, indent=1) + "\n")
    _show(answer, document, as_json)
    if out is not None:
        stderr().print(f"kept in {out}: {REPORT}", soft_wrap=True, style="dim")
    return EXIT_CLEAR


def _files(source: str) -> str | Path:
    if source != DEMO:
        return source
    from ..demo import WEIGHTS

    return WEIGHTS


def _show(answer: "Descent", document: dict[str, Any], as_json: bool) -> None:
    from ..lineage.by_weights import WORDS

    if as_json:
        write_document(document)
        return
    console = stdout()
    console.print(Text(answer.headline(), style="bold"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("", "cosine", "difference", "changed", "rank", style="dim")
    for name, kin in sorted(answer.candidates.items(), key=lambda item: item[1].difference or float("inf")):
        numbers = [
            "" if value is None else f"{value:{form}}"
            for value, form in ((kin.cosine, ".3f"), (kin.difference, ".3f"), (kin.changed, ".0%"), (kin.rank, ".0%"))
        ]
        grid.add_row(Text(name), *numbers, Text(WORDS[kin.relation]))
    console.print(grid)
    if answer.merge:
        words = f"of the nearest one's difference {answer.left:.1%} is left by these two"
        console.print(Text(f"  {words}", style="dim"), soft_wrap=True)
    console.print(
        Text("  weights tell who is kin and not who came first, and nothing of models that are not named", style="dim"),
        soft_wrap=True,
    )
