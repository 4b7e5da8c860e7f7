"""What reaches a terminal: nothing that it would obey, whatever prompts, files and models are called."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import typer
from PIL import Image
from rich.table import Table
from rich.text import Text

from cryptomnesia.commands import check as checking
from cryptomnesia.commands.app import app
from cryptomnesia.commands.console import PlainConsole, fail, progress, verdict_text, waiting

from ..helpers.commands import caller
from ..helpers.guarded import BENIGN, flags_all
from ..helpers.mended import report
from ..helpers.pipelines import build

ESC, CSI, RIGHT_TO_LEFT = "\x1b", "\x9b", "‮"
PLANTED = "✓ intact  PLANTED"
HOSTILE = f"a{ESC}]0;title\x07{ESC}[2J{CSI}31m{RIGHT_TO_LEFT}⁦[bold]b\n{PLANTED}\r{PLANTED} {PLANTED}\x85c"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file can have such a name there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("terminal")
    build("sd1").save_pretrained(place / HOSTILE / "model")
    (place / HOSTILE / "benign.txt").write_text("\n".join(BENIGN))
    flags_all("sd1").save(place / HOSTILE / "all.calibration.json")
    (place / HOSTILE / "library").mkdir()
    images = place / HOSTILE / "images"
    images.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{HOSTILE}{i}.png")
    (place / HOSTILE / f"{HOSTILE}.txt").write_text("a cat")
    (place / "prompts.jsonl").write_text(json.dumps({"prompt": HOSTILE}) + "\n")
    return place


def harmless(text: str) -> None:
    """No character that a terminal obeys, and no line that outside text began."""
    odd = {c for c in text if c != "\n" and (not c.isprintable() or unicodedata.category(c) in ("Cc", "Cf", "Cs"))}
    assert not odd, sorted(map(ascii, odd))
    for line in text.split("\n"):
        assert not line.lstrip(" │").startswith(PLANTED), line


IMAGES = f"{HOSTILE}/images"
IMAGE = f"{HOSTILE}/images/{HOSTILE}0.png"
MODEL = f"{HOSTILE}/model"
BENIGN_FILE = f"{HOSTILE}/benign.txt"
SMALL = ("--height", "16", "--width", "16")
SIGNATURE = f"{HOSTILE}/{HOSTILE}.signature.safetensors"
ALL = f"{HOSTILE}/all.calibration.json"
WALK = [
    # name of the command, then its arguments
    ("check", HOSTILE, "-m", MODEL),
    ("check", HOSTILE, "-m", MODEL, "-c", ALL, *SMALL),
    ("check", HOSTILE, "-m", MODEL, "-c", ALL, *SMALL, "--json"),
    ("check", "-f", "prompts.jsonl", "-m", MODEL, "--jsonl"),
    ("check", "-f", "prompts.jsonl", "-m", MODEL),
    ("check", "-f", f"{HOSTILE}/nowhere.csv"),
    ("check", "-f", BENIGN_FILE, "--column", HOSTILE, "--format", "csv"),
    ("check", "a", "-m", HOSTILE),
    ("check", "a", "-m", f"nowhere {HOSTILE}"),
    ("check", "a", "-m", MODEL, "-c", BENIGN_FILE),
    ("check", "a", "-m", MODEL, "-c", HOSTILE),
    ("check", "a", "-m", MODEL, "--device", HOSTILE),
    ("check", "a", "-m", MODEL, "--dtype", HOSTILE),
    ("check", "a", "--draws", HOSTILE),
    ("check", f"--{HOSTILE}"),
    (f"chek-for-it{HOSTILE}",),
    ("calibrate", "-m", MODEL, "-p", BENIGN_FILE, "--draws", "1", "--alpha", "0.02"),
    (
        "calibrate",
        "-m",
        MODEL,
        "-p",
        BENIGN_FILE,
        "--draws",
        "1",
        "--alpha",
        "0.02",
        "-o",
        f"{HOSTILE}/made.json",
    ),
    ("calibrate", "-m", MODEL, "-o", f"{HOSTILE}/no/x.json"),
    ("calibrate", "-m", MODEL, "-p", HOSTILE),
    ("rewrite", HOSTILE, "-m", MODEL),
    ("rewrite", HOSTILE, "-m", MODEL, "-c", ALL, *SMALL),
    ("rewrite", HOSTILE, "-m", MODEL, "-c", ALL, "--words", f"{HOSTILE}/nowhere"),
    (
        "locate",
        "-p",
        HOSTILE,
        "-m",
        MODEL,
        "-c",
        ALL,
        "-o",
        f"{HOSTILE}/out",
        "--height",
        "16",
        "--width",
        "16",
        "--steps",
        "1",
    ),
    ("locate", "-p", "a", "-m", MODEL, "-o", BENIGN_FILE),
    (
        "signature",
        "-m",
        MODEL,
        "-i",
        IMAGES,
        "-o",
        f"{HOSTILE}/{HOSTILE}.signature.safetensors",
        "--plan",
        "1step",
    ),
    ("signature", "-m", MODEL, "-o", f"{HOSTILE}/x"),
    ("identify", "-m", MODEL, "-l", f"{HOSTILE}/library"),
    ("identify", "-m", MODEL, "-l", HOSTILE),
    ("attribute", IMAGE, "-m", f"{HOSTILE}={MODEL}"),
    ("attribute", IMAGE, "-m", HOSTILE),
    ("attribute", f"{HOSTILE}/nowhere.png", "-m", f"a={MODEL}"),
    ("membership", "-s", IMAGES, "-r", IMAGES, "-o", f"{HOSTILE}/out", "-m", MODEL),
    ("membership", "-s", f"{HOSTILE}/nowhere", "-r", "b", "-o", f"{HOSTILE}/out", "-m", MODEL),
    (
        "lineage",
        "-t",
        IMAGES,
        "--pool",
        f"{HOSTILE}={HOSTILE}/images",
        "-o",
        f"{HOSTILE}/out",
        "-p",
        HOSTILE,
    ),
    ("lineage", "-t", f"{HOSTILE}/nowhere", "--pool", f"{HOSTILE}=nowhere", "-o", f"{HOSTILE}/out"),
    ("verify", IMAGE),
    ("verify", f"{HOSTILE}/nowhere.png"),
    ("verify", IMAGE, "--sidecar", BENIGN_FILE),
    ("demo", "-o", BENIGN_FILE),
    ("keys", "new", "-o", BENIGN_FILE),
    (
        "audit",
        "prompts",
        "-i",
        "prompts.jsonl",
        "-o",
        f"{HOSTILE}/audit",
        "-m",
        MODEL,
        "--gallery",
        "0",
        "--draws",
        "1",
    ),
    ("audit", "prompts", "-i", f"{HOSTILE}/nowhere.csv", "-o", f"{HOSTILE}/other", "-m", MODEL),
    ("audit", "images", "-i", IMAGES, "-o", f"{HOSTILE}/pictures"),
    ("audit", "images", "-i", f"{HOSTILE}/nowhere", "-o", f"{HOSTILE}/more"),
]


def test_the_walk_comes_by_every_command():
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for group in app.registered_groups:
        names |= {
            f"{group.typer_instance.info.name} {c.callback.__name__}" for c in group.typer_instance.registered_commands
        }
    assert isinstance(app, typer.Typer) and names <= {walked[0] for walked in WALK} | {" ".join(w[:2]) for w in WALK}


@pytest.mark.parametrize("arguments", WALK, ids=[f"{number}-{walked[0][:10]}" for number, walked in enumerate(WALK)])
def test_nothing_that_a_terminal_obeys_and_no_line_of_its_own(folder, monkeypatch, capsys, arguments):
    monkeypatch.chdir(folder)
    code, out, err = caller(capsys)(*arguments)
    assert code in (0, 2, 3, 4, 5) and "Traceback" not in err
    harmless(out)
    harmless(err)
    assert out or err


# --- the console itself ---


def rendered(width=60, **options):
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, color_system="standard", width=width, **options)
    return console, stream


def obeyed(text: str) -> bool:
    return (
        ("]0;" in text and f"{ESC}]0;" in text)
        or f"{ESC}[2J" in text
        or any(c in text for c in (CSI, RIGHT_TO_LEFT, "\x07"))
    )


def test_tables_bars_and_styles_are_cleaned_too():
    console, stream = rendered()
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, style="red"))
    for shown in (HOSTILE, Text.assemble((HOSTILE, "bold"), HOSTILE), table):
        console.print(shown)
    console.print(HOSTILE, HOSTILE, style="yellow", soft_wrap=True)
    with console.status(Text(HOSTILE)):
        pass
    found = stream.getvalue()
    assert not obeyed(found) and "[bold]" in found and f"{ESC}[" in found
    assert not any(line.startswith(PLANTED) for line in found.split("\n"))


def test_styles_stay_where_they_were():
    console, stream = rendered()
    console.print(Text.assemble("a\x1bb", ("red\x9b", "bold"), "c"))
    assert stream.getvalue() == f"a b{ESC}[1mred {ESC}[0mc\n"


def test_bars_and_waiting_show_no_markup(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress(HOSTILE) as bar:
        bar.add_task(HOSTILE, total=2)
    with waiting(HOSTILE):
        pass
    err = capsys.readouterr().err
    assert not obeyed(err) and "[bold]" in err
    fail(HOSTILE)
    harmless(capsys.readouterr().err)


@pytest.mark.parametrize("width", [12, 22, 40, 60, 61, 80, 200])
def test_a_prompt_is_shown_on_however_narrow_a_terminal(width):
    console, stream = rendered(width)
    rows = checking.Rows(console)
    for verdict in ("memorized", "clear"):
        rows.add(report("the restless beacon of grimsby", verdict))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert all(len(line) <= width for line in plain.split("\n"))
    assert re.sub(r"\s", "", plain).count("therestlessbeaconofgrimsby") == 2
    assert plain.count("memorized") == 1


# --- readers that leave, inputs that never end ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "-m", "model", "-f", "benign.txt", "--batch-rows", "16"),
        ("check", "-m", "model", "-f", "benign.txt", "--json"),
        ("check", "--help"),
        ("--version",),
    ],
)
def test_a_reader_that_leaves_early_costs_no_word(folder, arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "cryptomnesia.cli", *arguments],
        cwd=folder / HOSTILE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait() == 141 and err == ""


def test_verdicts_have_words():
    assert verdict_text("memorized").plain == "▲ likely memorized"
