"""docs/adding-*.md, followed literally in a copy of the project: files are written, lines put in, commands run."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.snippets import ROOT, Snippet, snippets

MOST_FILES = 12  # that a signal touches, with its command and its node
COPIED = ("guard", "nodes", "scripts", "cryptomnesia_webui", "web", "workflows", "tests", "docs")
FILES = ("README.md", "CHANGELOG.md", "pyproject.toml", "requirements.txt", ".comfyignore", "__init__.py", "install.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the guides touch and their tests look at, importable in place of the installed library."""
    left_out = shutil.ignore_patterns("__pycache__", "*.png", "*.jpg")
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "cryptomnesia").symlink_to(tmp_path / "guard", target_is_directory=True)
    return tmp_path


def follow(guide: str, copy: Path) -> list[str]:
    """Does what the guide says, and returns the files that it touched."""
    touched = []
    for snippet in snippets(ROOT / "docs" / guide):
        name = snippet.notes.get("file") or snippet.notes.get("in")
        if snippet.language == "sh":
            for line in snippet.commands:
                execute(line, copy, snippet.where)
        elif "file" in snippet.notes:
            assert not (copy / snippet.notes["file"]).exists(), f"{snippet.where}: it is there already"
            (copy / snippet.notes["file"]).write_text(snippet.text, "utf-8")
        else:
            put_in(snippet, copy)
        touched += [name] if name else []
    return list(dict.fromkeys(touched))


def put_in(snippet: Snippet, copy: Path) -> None:
    """The block behind the one line that the guide names, or so many lines further down."""
    file = copy / snippet.notes["in"]
    lines = file.read_text("utf-8").splitlines(keepends=True)
    place = [number for number, line in enumerate(lines) if line.rstrip("\n") == snippet.notes["after"]]
    assert place, f"{snippet.where}: {file.name} has no such line"
    after = place[0] + 1 + int(snippet.notes.get("behind", "0"))
    file.write_text("".join([*lines[:after], snippet.text, *lines[after:]]), "utf-8")


def execute(line: str, copy: Path, where: str) -> None:
    program, *words = shlex.split(line)
    module = ["-m", "cryptomnesia.cli"] if program == "cryptomnesia" else []
    environment = os.environ | {"PYTHONPATH": str(copy), "CI": ""}
    command = [sys.executable, *module, *words]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{where}: {line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def test_a_signal_with_its_command_and_node_touches_few_files(copy: Path):
    signal = follow("adding-a-signal.md", copy)
    assert len(signal) == 6
    touched = {*signal, *follow("adding-a-node.md", copy)}
    assert len(touched) <= MOST_FILES, sorted(touched)


def test_a_model_family_is_one_file_and_a_line(copy: Path):
    touched = follow("adding-a-model-family.md", copy)
    assert [name for name in touched if name.startswith("guard/")] == [
        "guard/adapters/prx.py",
        "guard/adapters/__init__.py",
    ]
