"""How much the pack adds to ComfyUI's start: `python -m benchmarks.comfyui_load`.

Two readings, each in fresh processes: the line that ComfyUI's server prints about the pack, in tenths of a second; and
the same loader of ComfyUI's, timed by us, to the millisecond. The first start finds no compiled Python files.
"""

import compileall
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.nodes.installation import Installation, install
from tests.nodes.server import serving

from .common import arguments, store, table

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("__init__.py", "guard", "nodes", "web", "pyproject.toml", "locales", "workflows")
GOAL = 0.5  # seconds
TIMED = """
import json, sys, time
from pathlib import Path
from tests.nodes.harness import Comfy
from tests.nodes.installation import Installation

tree, packages, base, pack = map(Path, sys.argv[1:])
comfy = Comfy(Installation(tree, packages), base)
load, took = comfy.nodes.load_custom_node, []

async def timed(*arguments):
    started = time.perf_counter()
    try:
        return await load(*arguments)
    finally:
        took.append(time.perf_counter() - started)

comfy.nodes.load_custom_node = timed
comfy.load_pack(pack, "cryptomnesia")
(base / "timed.json").write_text(json.dumps({
    "seconds": took[0],
    "nodes": len([name for name in comfy.nodes.NODE_CLASS_MAPPINGS if name.startswith("Cryptomnesia")]),
}))
"""


def copied(folder: Path) -> Path:
    """The pack as it is installed, without compiled files."""
    pack = folder / "cryptomnesia"
    pack.mkdir()
    for part in (ROOT / name for name in PARTS):
        if part.is_dir():
            shutil.copytree(part, pack / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.exists():
            shutil.copy(part, pack)
    return pack


def printed(found: Installation, base: Path, pack: Path) -> float:
    """Seconds, as ComfyUI's server says."""
    with serving(found, base, {"cryptomnesia": pack}) as server:
        seconds, fine = server.imported("cryptomnesia")
    if not fine:
        raise SystemExit("ComfyUI could not import the pack")
    return seconds


def timed(found: Installation, base: Path, pack: Path) -> dict[str, Any]:
    """Seconds of ComfyUI's loader, and how many nodes it found."""
    base.mkdir()
    command = [sys.executable, "-c", TIMED, *map(str, (found.tree, found.packages, base, pack))]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((base / "timed.json").read_text())


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median and range."""
    return {"median": median(seconds), "least": min(seconds), "most": max(seconds), "runs": seconds}


def main() -> None:
    options = arguments(__doc__, starts={"type": int, "default": 7})
    found = install()
    with TemporaryDirectory() as place:
        pack = copied(Path(place))
        before = timed(found, Path(place) / "first", pack)
        compileall.compile_dir(pack, quiet=1)  # whether or not this environment lets Python write such files
        runs = [timed(found, Path(place) / f"loader-{run}", pack) for run in range(options.starts)]
        said = [printed(found, Path(place) / f"server-{run}", pack) for run in range(options.starts)]
    results = {
        "ComfyUI's line": spread(said),
        "ComfyUI's loader, timed": spread([round(run["seconds"], 4) for run in runs]),
    }
    first = round(before["seconds"], 4)
    table(["seconds", "median", "least", "most"], [[name, *list(row.values())[:3]] for name, row in results.items()])
    print(f"the first start, which compiles the pack: {first:.3f} s; nodes: {runs[0]['nodes']}; goal: {GOAL} s")
    store(
        "comfyui_load",
        {"goal_seconds": GOAL, "nodes": runs[0]["nodes"], "seconds": results, "seconds_of_first_start": first},
    )


if __name__ == "__main__":
    main()
