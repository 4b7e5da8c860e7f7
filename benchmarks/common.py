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


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Prints aligned columns; numbers with three decimals."""
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@torch.inference_mode()
def generate(pipe: Any, prompts: list[str], seeds: int, *, steps: int = 20, batch: int = 32) -> NDArray[np.uint8]:
    """(P, seeds, 64, 64, 3): every prompt at seeds 0..seeds-1, guidance 7.5, DDIM."""
    jobs = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
    images = []
    for start in range(0, len(jobs), batch):
        some = jobs[start : start + batch]
        generators = [torch.Generator().manual_seed(1000 + seed) for _, seed in some]
        made = pipe(
            [p for p, _ in some], num_inference_steps=steps, guidance_scale=7.5, generator=generators, output_type="np"
        ).images
        images.append((made * 255).round().astype(np.uint8))
    return np.concatenate(images).reshape(len(prompts), seeds, *images[0].shape[1:])
