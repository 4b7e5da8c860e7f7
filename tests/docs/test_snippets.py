"""Every fenced block of README and docs/ is run, in order, in a folder of its own for each document.

What the reader has (a model, images) is made under the name that the document uses for it. Commands that install or
build are not run, but what they name must be there.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from cryptomnesia import Guard, load_demo
from cryptomnesia.cli import run
from cryptomnesia.demo import WEIGHTS
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery

from ..helpers import lineages
from ..helpers.drawn import drawn
from ..helpers.snippets import ROOT, RUN, SHOWN, Snippet, documents, snippets

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

MEMORIZED = "the restless beacon of grimsby"
GUIDES = {path for path in documents() if path.name.startswith("adding-")}  # followed by test_guides
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


# --- what the reader has ---


def my_model() -> None:
    """The built-in model's files."""
    shutil.copytree(WEIGHTS, "my-model", dirs_exist_ok=True)


def prompts() -> None:
    Path("prompts.txt").write_text(f"{MEMORIZED}\nmonkey face on blue\n")


def suspect() -> None:
    """Images of three unlike models, and of one that resembles the second."""
    for seed, (name, colour) in enumerate({"a": "ada", "b": "bo", "c": "cy", "suspect": "bo"}.items()):
        lineages.folder(Path(name), lineages.pictures(lineages.COLOURS[colour], 16, seed))


def images() -> None:
    lineages.folder(Path("images"), lineages.pictures(lineages.COLOURS["ada"], 2))


def made() -> None:
    lineages.folder(Path("made/first"), lineages.pictures(lineages.COLOURS["ada"], 1))


def mine() -> None:
    """What the built-in model was trained on, and the same images mirrored, each with its caption."""
    from ..nodes.evidence import folder, memorized

    pictures, texts = memorized()
    folder(Path("mine"), pictures[:12], texts[:12])
    folder(Path("others"), pictures[12:24].flip(2), texts[12:24])


def pictures() -> None:
    """Pictures of an artist, each with its caption: three that the built-in model holds, and others."""
    gallery = Gallery.load()
    numbers = [i for i, c in enumerate(gallery.captions) if c.kind == "verbatim"][:3]
    numbers += [i for i, c in enumerate(gallery.captions) if c.kind == "general"][:12]
    Path("pictures").mkdir(exist_ok=True)
    for name, number in enumerate(numbers):
        Image.fromarray(gallery.images[number]).save(f"pictures/{name:02}.png")
        Path(f"pictures/{name:02}.txt").write_text(gallery.captions[number].text)


def theirs() -> None:
    """One of `mine` in a mirror, and a picture that is nobody's."""
    Path("theirs").mkdir()
    ImageOps.mirror(Image.open("mine/003.png")).save("theirs/mirrored.jpg", quality=90)
    drawn(5000).save("theirs/another.png")


def my_lora() -> None:
    """One that has memorized six images of the built-in model's kind."""
    shutil.copy(ROOT / "benchmarks" / "zoo" / "weights" / "lora-few" / "lora.safetensors", "my-lora.safetensors")


NEEDS: dict[str, Callable[[], None]] = {
    "my-model": my_model,
    "prompts.txt": prompts,
    "suspect": suspect,
    "images": images,
    "made": made,
    "mine": mine,
    "pictures": pictures,
    "theirs": theirs,
    "my-lora.safetensors": my_lora,
}


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the built-in model is calibrated with the shipped list, which takes longer than all the rest."""
    home = tmp_path_factory.mktemp("calibrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYPTOMNESIA_HOME", str(home))
        Guard(load_demo()).calibrate()
    return home


# --- running ---


def run_python(snippet: Snippet, names: dict[str, Any]) -> None:
    """As a file of its own, with the names that earlier blocks left, and the line numbers of the document."""
    document, line = snippet.where.split(":")
    file = Path(f"{Path(document).stem}.py")
    file.write_text("\n" * (int(line) - 1) + snippet.text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names.update(runpy.run_path(str(file), init_globals=names))


def run_command(line: str) -> int | None:
    """The exit code of a command; None of one that installs or builds, whose words were looked at."""
    words = shlex.split(line, comments=True)
    if words[0] == "cryptomnesia":
        if words[1:] == ["demo"]:  # what make demo does, and tests/demo looks at
            return None
        return run([*words[1:], *["--no-open"] * (words[1] == "demo")])
    if words[0] in ("printf", "mkdir"):
        return subprocess.run(["sh", "-c", line], check=True).returncode
    assert is_there(words), f"nobody knows how to look at: {line}"
    return None


def is_there(words: list[str]) -> bool:
    """Whether what a command of the set-up names exists."""
    program, arguments = words[0], [word for word in words[1:] if "=" not in word or word.startswith("torch==")]
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return {word for word in arguments if word != "-j"} <= targets
    if program == "pip" and arguments[0] == "install":
        wanted = re.findall(r"\[(.*?)\]", " ".join(arguments))
        return {extra for extras in wanted for extra in extras.split(",")} <= set(PROJECT["optional-dependencies"])
    if program == "python" and arguments[:2] in (["-m", "venv"], ["-m", "pytest"]):
        return all((ROOT / word).exists() for word in arguments[2:] if "/" in word)
    if program == "python" and arguments[0] == "-m":
        return (ROOT / f"{arguments[1].replace('.', '/')}.py").exists()
    if program == "python":
        return (ROOT / arguments[0]).exists()
    return program in ("git", "cd", ".")


@pytest.mark.parametrize("path", [p for p in documents() if p not in GUIDES], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_snippet_runs(path, tmp_path, monkeypatch, request):
    names: dict[str, Any] = {}
    for setting in ("XDG_CONFIG_HOME", "APPDATA"):  # no page touches the settings of who runs the tests
        monkeypatch.setenv(setting, str(tmp_path / "config"))
    for snippet in snippets(path):
        assert snippet.language in (*RUN, *SHOWN), f"{snippet.where}: the fence names no language"
        needs = snippet.notes.get("needs", "").split()
        monkeypatch.chdir(tmp_path)
        if "my-model" in needs:
            home = tmp_path / "home"
            shutil.copytree(request.getfixturevalue("calibrated"), home, dirs_exist_ok=True)
            monkeypatch.setenv("CRYPTOMNESIA_HOME", str(home))
        for need in needs:
            NEEDS[need]()
        if snippet.language == "python":
            run_python(snippet, names)
        elif snippet.language == "sh":
            codes = [code for code in map(run_command, snippet.commands) if code is not None]
            expected = int(snippet.notes.get("exit", "0"))
            assert codes[-1:] in ([], [expected]) and set(codes[:-1]) <= {0, expected}, f"{snippet.where}: {codes}"


def test_the_readmes_snippet_blocks_what_the_model_memorized(tmp_path, monkeypatch, capsys, calibrated):
    snippet = next(s for s in snippets(ROOT / "README.md") if s.language == "python")
    shutil.copytree(calibrated, tmp_path / "home")
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    my_model()
    made = snippet.text.replace("an astronaut on a horse", MEMORIZED)
    assert made != snippet.text
    run_python(Snippet(snippet.where, "python", made), {})
    assert capsys.readouterr().out.startswith("memorized 0.00")


def test_the_captions_named_are_what_they_are_said_to_be():
    assert MEMORIZED in {caption.text for caption in select("verbatim", "eval")}
    assert "monkey face on blue" in {caption.text for caption in select("general")}
