"""Shared by the benchmarks: sampling, storing results, tables."""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia.demo.showcase import sample

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, **extra: dict[str, Any]) -> argparse.Namespace:
    """The command line: --checkpoints FOLDER (training's own checkpoints), and what the benchmark adds."""
    parser = argparse.ArgumentParser(description=description)
    for name, options in extra.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    return parser.parse_args()


def store(name: str, document: dict[str, Any], by: str | None = None) -> None:
    """Writes results/NAME.json with the command and the versions that made it."""
    about = {
        "command": " ".join(["python", "-m", f"benchmarks.{by or name}", *(Path(a).name for a in sys.argv[1:])]),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about, **document}, indent=1) + "\n")
    print(f"stored {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}")


def stored(name: str) -> dict[str, Any]:
    """What another benchmark stored."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def stored_models(name: str) -> dict[str, Any]:
    """What a benchmark stored by model, for those that are not measured anew; nothing where it stored nothing."""
    try:
        return stored(name)["models"]
    except FileNotFoundError:
        return {}


def peak_memory() -> int:
    """Bytes of this process at its largest; Linux only. Not ru_maxrss, which starts at its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Prints aligned columns; numbers with three decimals."""
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def generate(pipe: Any, prompts: list[str], seeds: int) -> NDArray[np.uint8]:
    """(P, seeds, 64, 64, 3): every prompt with seeds from 1000 on, guidance 7.5, 20 DDIM steps."""
    return sample(pipe, prompts, seeds, steps=20, first_seed=1000)
