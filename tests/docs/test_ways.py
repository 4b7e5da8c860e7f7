"""The table of ways to run a model says what the code does: each way is tried on a small pipeline."""

import pytest
import torch

from ..helpers.snippets import ROOT
from ..helpers.ways import WAYS, tried

COLUMNS = ("check", "attach", "rewrite", "locate", "fingerprint", "tried on")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's compiler


def table() -> dict[str, dict[str, str]]:
    """The answers by way and column."""
    text = (ROOT / "docs" / "ways-to-run.md").read_text("utf-8")
    lines = text[text.index("| way | check |") :].split("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert tuple(head[1:]) == COLUMNS
    return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("name", WAYS)
def test_each_way_does_what_the_table_says(name: str):
    says = table()[name]
    assert "CPU" in says.pop("tried on")
    for number, way in enumerate(WAYS[name]):
        found = tried(way, torch.device("cpu"), briefly=number > 0)
        assert found == {column: says[column] for column in found} and (number or found.keys() == says.keys())


def test_the_table_has_every_way():
    untried = {name for name, says in table().items() if says["check"] == "untried"}
    assert table().keys() == WAYS.keys() | untried and not WAYS.keys() & untried
