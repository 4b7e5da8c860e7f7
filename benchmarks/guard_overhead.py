"""What a guard costs while a pipeline samples: `python -m benchmarks.guard_overhead`.

Paired: guarded and unguarded calls of the same pipeline take turns, and each pair gives one ratio of this process's CPU
times, which others on the machine hardly change.
"""

import time
import warnings
from statistics import median
from typing import Any

import torch

from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.pipeline_call import first_timestep
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.demo.captions import select

from .common import arguments, store, table

# images, steps, and whether the calibration is made at the first of these steps
CASES = (
    (1, 50, False),
    (4, 50, False),
    (1, 20, False),
    (1, 20, True),
    (1, 30, False),
    (1, 30, True),
    (1, 100, False),
    (1, 100, True),
)


def calibration(pipe: Any, draws: int, steps: int | None) -> Calibration:
    """Of the built-in model, at that number of draws, and at the first timestep of so many steps."""
    captions = [c.text for kind in ("general", "control", "unseen") for c in select(kind, "calibration")]
    denoiser: Any = to_denoiser(pipe)
    time = None if steps is None else first_timestep(denoiser, steps)
    return calibrate(denoiser, denoiser.encode(captions), draws=draws, time=time)


def seconds(pipe: Any, prompts: list[str], steps: int, seed: int) -> tuple[float, Any]:
    """CPU time and output of one call."""
    generator = torch.Generator().manual_seed(seed)
    started = time.process_time()
    out = pipe(prompts, num_inference_steps=steps, generator=generator, output_type="latent")
    return time.process_time() - started, out


def paired(pipe: Any, guard: Guard, images: int, steps: int, pairs: int) -> dict[str, float]:
    """Median and quartiles of guarded / unguarded CPU time, and what rows say it should be."""
    prompts = [c.text for c in select("general", "eval")[:images]]
    ratios, rows = [], 0
    for seed in range(-2, pairs):
        order = (False, True) if seed % 2 else (True, False)
        took = {}
        for guarded in order:
            if guarded:
                with guard.attached():
                    took[True], out = seconds(pipe, prompts, steps, seed + 2)
                rows = sum(report.forward_rows for report in out.memorization)
            else:
                took[False], _ = seconds(pipe, prompts, steps, seed + 2)
        if seed >= 0:  # the first pairs warm up, and fill the cache of the private draws
            ratios.append(took[True] / took[False])
    ratios.sort()
    return {
        "ratio": median(ratios),
        "lower_quartile": ratios[len(ratios) // 4],
        "upper_quartile": ratios[3 * len(ratios) // 4],
        "extra_rows_per_image": rows / images,
        "ratio_by_rows": 1 + rows / (2 * steps * images),
    }


def main() -> None:
    options = arguments(__doc__, pairs={"type": int, "default": 25})
    warnings.simplefilter("ignore")
    pipe = load_demo()
    found, lines = {}, []
    for draws in (1, 4):
        for images, steps, own in CASES:
            guard = Guard(pipe, calibration(pipe, draws, steps if own else None))
            name = f"{draws} draws, {images} images, {steps} steps{', calibrated at their start' if own else ''}"
            found[name] = paired(pipe, guard, images, steps, options.pairs)
            lines.append([name, *found[name].values()])
    table(["", *next(iter(found.values()))], lines)
    store("guard_overhead", {"pairs": options.pairs, "paired_ratios": found})


if __name__ == "__main__":
    main()
