"""The registry of questions names every command, node, finding and page, and nothing else."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptomnesia.questions import QUESTIONS
from cryptomnesia.sidecar.findings import KINDS

ROOT = Path(__file__).parents[1]
# where another module than the command's writes the page
PAGES_ELSEWHERE = {"audit": "audit/report.py", "extract": "extraction/extract.py"}


def test_each_command_is_a_module_and_is_named_once():
    names = [question.command for question in QUESTIONS]
    assert len(set(names)) == len(names)
    commands = ROOT / "guard" / "commands"
    # a command's module holds a function or a typer app of its own name
    own = [path.stem for path in commands.glob("*.py") if path.stem in assigned(path) and path.stem != "app"]
    assert sorted(own) == sorted(names)


def assigned(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_the_command_line_offers_them_in_that_order():
    from typer.main import get_command

    from cryptomnesia.commands.app import app

    group = get_command(app)
    listed = group.list_commands(None)  # type: ignore[attr-defined, arg-type]
    assert listed == [question.command for question in QUESTIONS]
    for question in QUESTIONS:
        command = group.get_command(None, question.command)  # type: ignore[attr-defined, arg-type]
        assert command.name == question.command
        assert command.get_short_help_str(200).rstrip(".") == question.help.rstrip(".")
    assert group.get_command(None, "console") is None  # type: ignore[attr-defined, arg-type]


def test_a_command_is_imported_when_it_is_run():
    import subprocess

    code = """
import sys
from cryptomnesia.cli import run
run(["check", "--help"])
print([name for name in sys.modules if name.startswith("cryptomnesia.commands.")], "torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    last = found.splitlines()[-1]
    assert "commands.check" in last and "commands.lineage" not in last and last.endswith("False")


def test_every_node_belongs_to_one_question():
    files = {path.stem for path in (ROOT / "nodes").glob("*.py") if "\nNODE = " in path.read_text("utf-8")}
    named = [node for question in QUESTIONS for node in question.nodes]
    assert len(set(named)) == len(named) and set(named) == files


def test_every_kind_of_finding_is_told_of_and_in_the_schema():
    kinds = {question.finding for question in QUESTIONS if question.finding}
    assert kinds == set(KINDS)
    schema = json.loads((ROOT / "guard" / "sidecar" / "schema.json").read_text("utf-8"))
    assert kinds == {value for value in constants(schema) if value in {*KINDS, "region", "similarity"}}


def constants(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        kind = schema.get("kind")
        if isinstance(kind, dict):
            yield from [kind["const"]] if "const" in kind else kind.get("enum", [])
        for value in schema.values():
            yield from constants(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from constants(value)


@pytest.mark.parametrize("question", [q for q in QUESTIONS if q.page], ids=lambda question: question.command)
def test_pages_are_called_so(question):
    module = PAGES_ELSEWHERE.get(question.command, f"commands/{question.command}.py")
    assert f'"{question.page}"' in (ROOT / "guard" / module).read_text("utf-8").replace("'", '"')


def test_the_documentation_tells_of_each():
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text("utf-8") for path in texts)
    for question in QUESTIONS:
        assert re.search(rf"\bcryptomnesia {question.command}\b|`{question.command}\b", text), question.command
        for node in question.nodes:
            source = (ROOT / "nodes" / f"{node}.py").read_text("utf-8")
            name = re.search(r'display_name="([^"]+)"', source)
            assert name and name[1] in text, node
