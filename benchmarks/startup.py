"""How long it takes until `cryptomnesia check "a cat"` has answered: `python -m benchmarks.startup --old FOLDER`.

FOLDER is a checkout of an earlier commit, which is measured in turns with this one. Each run is a process of its own.
What counts is CPU time, user and system, which other work on the machine changes little; wall time is given beside it.
The unit is what Python and `import torch` take in the same round, which no change of this library can save.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from .common import arguments, store, table

HERE = Path(__file__).parents[1]
MODELS = {"the built-in model": "demo", "a diffusers folder": "cryptomnesia/demo/weights"}
PHASES = ("python", "torch", "the command's own code", "loading the model", "checking")
CHECK = """
import json, os, sys, time
marks, started = [], float(sys.argv[1])
def mark():
    used = os.times()
    marks.append((time.time() - started, used.user + used.system))
mark()
import torch
mark()
from cryptomnesia.cli import main
from cryptomnesia.commands import app, check
mark()
open_guard = check.open_guard
def timed(*values, **options):
    made = open_guard(*values, **options)
    mark()
    return made
check.open_guard = timed
sys.argv = ["cryptomnesia", "check", "a cat", "--model", sys.argv[2]]
try:
    main()
finally:
    mark()
    print(json.dumps(marks))
"""


class Version:
    """A checkout, importable as `cryptomnesia` from a folder of its own."""

    def __init__(self, checkout: Path, folder: Path):
        folder.mkdir()
        (folder / "cryptomnesia").symlink_to(checkout.resolve() / "guard")
        self.folder = folder
        # without calibrations of this user's own
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "CRYPTOMNESIA_HOME": str(folder / "home")}

    def run(self, code: str, *values: str) -> dict[str, Any]:
        """CPU and wall seconds of a process, and what it wrote."""
        before, started = os.times(), time.perf_counter()
        command = [sys.executable, "-c", code, *values]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        wall, after = time.perf_counter() - started, os.times()
        if done.returncode:
            sys.exit(f"{values}: {done.stderr}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"cpu": cpu, "wall": wall, "out": done.stdout}

    def check(self, model: str) -> dict[str, Any]:
        """The command, with the seconds of each of its phases: (wall, CPU)."""
        done = self.run(CHECK, str(time.time()), model)
        marks = [(0.0, 0.0), *json.loads(done["out"].splitlines()[-1])]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)]
        return {**done, "phases": dict(zip(PHASES, steps, strict=True))}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range, to the digits that a busy machine leaves."""
    return {"median": round(median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}


def measured(versions: dict[str, Version], model: str, runs: int) -> dict[str, Any]:
    """Of one model: seconds, ratios to the unit, and old / new, over rounds in which all take turns."""
    units: list[dict[str, Any]] = []
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    for number in range(-1, runs):  # the first round reads the files into memory
        unit = versions["new"].run("import torch")
        found = {name: version.check(model) for name, version in versions.items()}
        if number >= 0:
            units.append(unit)
            for name, row in found.items():
                rounds[name].append(row)
    document: dict[str, Any] = {}
    for kind in ("cpu", "wall"):
        document[kind] = {"unit": spread([unit[kind] for unit in units])}
        for name, rows in rounds.items():
            document[kind][f"{name} seconds"] = spread([row[kind] for row in rows])
            pairs = zip(rows, units, strict=True)
            document[kind][f"{name} in units"] = spread([row[kind] / unit[kind] for row, unit in pairs])
            document[kind][f"{name} by phase"] = shares(rows, ("wall", "cpu").index(kind))
        if "old" in rounds:
            pairs = zip(rounds["old"], rounds["new"], strict=True)
            document[kind]["old / new"] = spread([old[kind] / new[kind] for old, new in pairs])
    return document


def shares(rows: list[dict[str, Any]], index: int) -> dict[str, dict[str, float]]:
    """Each phase's share of the time up to the answer; index 0 for wall, 1 for CPU time."""
    totals = [sum(step[index] for step in row["phases"].values()) for row in rows]
    return {
        phase: spread([row["phases"][phase][index] / total for row, total in zip(rows, totals, strict=True)])
        for phase in PHASES
    }


def main() -> None:
    options = arguments(__doc__, runs={"type": int, "default": 5}, old={"type": Path, "help": "an earlier checkout"})
    with tempfile.TemporaryDirectory() as scratch:
        checkouts = {"old": options.old, "new": HERE} if options.old else {"new": HERE}
        versions = {name: Version(checkout, Path(scratch) / name) for name, checkout in checkouts.items()}
        found = {title: measured(versions, model, options.runs) for title, model in MODELS.items()}
    rows = []
    for title, row in found.items():
        for kind, values in row.items():
            rows += [[title, kind, name, *figures.values()] for name, figures in values.items() if "median" in figures]
    table(["model", "time", "", "median", "least", "most"], rows)
    store("startup", {"runs": options.runs, "check": found})


if __name__ == "__main__":
    main()
