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
WHOLE = "import sys; from cryptomnesia.cli import run; sys.exit(run(sys.argv[1:]))"
PHASES = ("python", "torch", "the command's own code", "loading the model", "checking")
IN_PHASES = """
import inspect, json, os, sys, time
marks = []
def mark():
    used = os.times()
    marks.append((time.time() - float(sys.argv[1]), used.user + used.system))
mark()
import torch
mark()
from cryptomnesia.commands import check
from cryptomnesia.commands.models import open_guard
mark()
bare = {"bare": True} if "bare" in inspect.signature(open_guard).parameters else {}
guard, draws = open_guard(sys.argv[2], "auto", None, None, (None, None), **bare)
mark()
list(guard.check_many(["a cat"], draws=draws))
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
        """The whole command."""
        return self.run(WHOLE, "check", "a cat", "--model", model)

    def phases(self, model: str) -> dict[str, tuple[float, float]]:
        """Wall and CPU seconds of each phase."""
        out = self.run(IN_PHASES, str(time.time()), model)["out"]
        marks = [(0.0, 0.0), *json.loads(out.splitlines()[-1])]
        return dict(zip(PHASES, [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)], strict=True))


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
        if "old" in rounds:
            pairs = zip(rounds["old"], rounds["new"], strict=True)
            document[kind]["old / new"] = spread([old[kind] / new[kind] for old, new in pairs])
    return document


def in_phases(version: Version, model: str, runs: int) -> dict[str, Any]:
    """Share of each phase in the time up to the answer: medians over the runs, of wall and of CPU time."""
    found = [version.phases(model) for _ in range(runs)]
    shares: dict[str, Any] = {}
    for index, kind in enumerate(("wall", "cpu")):
        totals = [sum(step[index] for step in row.values()) for row in found]
        shares[kind] = {
            phase: spread([row[phase][index] / total for row, total in zip(found, totals, strict=True)])
            for phase in PHASES
        }
    return shares


def main() -> None:
    options = arguments(__doc__, runs={"type": int, "default": 5}, old={"type": Path, "help": "an earlier checkout"})
    with tempfile.TemporaryDirectory() as scratch:
        checkouts = {"old": options.old, "new": HERE} if options.old else {"new": HERE}
        versions = {name: Version(checkout, Path(scratch) / name) for name, checkout in checkouts.items()}
        document: dict[str, Any] = {"runs": options.runs, "check": {}, "share of phases": {}}
        for title, model in MODELS.items():
            document["check"][title] = measured(versions, model, options.runs)
            document["share of phases"][title] = {
                name: in_phases(version, model, options.runs) for name, version in versions.items()
            }
    rows = []
    for title, row in document["check"].items():
        for kind, values in row.items():
            rows += [[title, kind, name, *figures.values()] for name, figures in values.items()]
    table(["model", "time", "", "median", "least", "most"], rows)
    store("startup", document)


if __name__ == "__main__":
    main()
