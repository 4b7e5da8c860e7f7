"""What an estimate of the curvature map costs and is worth: `python -m benchmarks.curvature`, on the dev captions.

Time and memory are ratios to the authors' sixteen backward passes over one graph, in one run; the exact diagonal needs
a gradient per coordinate. Weights need no gradients, so the graph holds no more than the authors' must.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.localization.trajectory import late_level
from cryptomnesia.signals.curvature import SMOOTHING, STEP, curvature_map
from cryptomnesia.signals.difference import Difference
from cryptomnesia.signals.smoothing import smooth

from .common import arguments, store, table
from .localization import Sampled, half_peak, refined, sampled
from .masks import Masks, iou, ranking
from .speed import seconds

AUTHORS = "backward, 16 probes"
SEEDS = 2  # of the probes
WIDTHS = (0.0, SMOOTHING)
# of latents (1, C, h, w), their condition and what the sampler knows, a seed, a smoothing width: (1, h, w)
Ask = Callable[[Tensor, Any, Tensor, int, float], Tensor]


def model() -> Any:
    """The built-in model, whose weights need no gradients."""
    pipe = load_demo()
    for part in (pipe.unet, pipe.text_encoder):
        part.requires_grad_(False)
    return to_denoiser(pipe)


# --- estimators ---


def estimators(denoiser: Any) -> dict[str, Ask]:
    """By name; those of the library, and two that were tried and not taken up."""
    found: dict[str, Ask] = {}
    for name, counts in (("forward", (1, 2, 4, 8, 16)), ("backward", (1, 4, 16))):
        for probes in counts:
            found[f"{name}, {probes} probes"] = partial(of_library, denoiser, name, probes, False)
    found["forward, 4 probes, g(x) from the sampler"] = partial(of_library, denoiser, "forward", 4, True)
    found["central differences, 4 probes"] = partial(central, denoiser, 4)
    found["forward mode (jvp), 4 probes"] = partial(forward_mode, denoiser, 4)
    return found


def of_library(
    denoiser: Any,
    estimator: Any,
    probes: int,
    reuse: bool,
    x: Tensor,
    condition: Any,
    known: Tensor,
    seed: int,
    width: float,
) -> Tensor:
    options = {"estimator": estimator, "probes": probes, "known": known if reuse else None}
    return curvature_map(denoiser, x, late_level(denoiser), condition, seed=seed, smoothing=width, **options)


def central(denoiser: Any, probes: int, x: Tensor, condition: Any, known: Tensor, seed: int, width: float) -> Tensor:
    """(g(x + step v) - g(x - step v)) / (2 step): two points a probe."""
    difference, v = Difference(denoiser, x, late_level(denoiser), condition), signs(probes, x, seed)
    g = difference(torch.cat([x + STEP * v, x - STEP * v]), torch.zeros(2 * probes, dtype=torch.long))
    return finished(difference, ((g[:probes] - g[probes:]) * v).mean(0) / (2 * STEP), width)


def forward_mode(
    denoiser: Any, probes: int, x: Tensor, condition: Any, known: Tensor, seed: int, width: float
) -> Tensor:
    """Dual numbers in place of a difference: no step to choose, but each row carries its tangent."""
    difference, v = Difference(denoiser, x, late_level(denoiser), condition), signs(probes, x, seed)
    rows = torch.zeros(probes, dtype=torch.long)

    def g(point: Tensor) -> Tensor:
        return difference(point, rows, grad=True)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # the others have no forward mode
        derivative: Any = torch.func.jvp(g, (x.expand_as(v).contiguous(),), (v,))[1]
    return finished(difference, (derivative * v).mean(0).detach(), width)


def signs(probes: int, x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, (probes, *x.shape[1:]), generator=generator) - 1


def finished(difference: Difference, diagonal: Tensor, width: float) -> Tensor:
    return smooth(diagonal.sum(0, keepdim=True) / difference.sigma.view(-1, 1, 1), width).clamp_min(0)


# --- what they are worth ---


def questions(denoiser: Any, found: Sampled, t: int) -> Iterator[tuple[Tensor, Any, Tensor]]:
    """Latent, condition and the sampler's own g(x) of each image."""
    for i, text in enumerate(found.texts):
        x, condition = found.latents[t][i : i + 1], denoiser.encode(text)
        yield x, condition, Difference(denoiser, x, denoiser.level(t), condition)(x, torch.zeros(1, dtype=torch.long))


def quality(ask: Ask, asked: list[Any], exact: dict[float, Tensor], found: Sampled, truth: Masks) -> dict[str, float]:
    """Means over images and probe seeds: correlation with the exact map, smoothed or not; pixel AUROC and IoU."""
    maps = {
        width: torch.cat([ask(x, c, g, seed, width) for seed in range(SEEDS) for x, c, g in asked]) for width in WIDTHS
    }
    row = {}
    for name, width in zip(("correlation", "correlation_smoothed"), WIDTHS, strict=True):
        pairs = zip(maps[width], exact[width].repeat(SEEDS, 1, 1), strict=True)
        row[name] = float(np.mean([np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in pairs]))
    fine = refined(maps[SMOOTHING], np.concatenate([found.images] * SEEDS))
    masks = np.concatenate([truth] * SEEDS)
    return row | {
        "auroc": float(ranking(fine, masks)["auroc"].mean()),
        "iou": float(iou(half_peak(fine), masks).mean()),
    }


# --- what they cost ---


def times(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, Any]]:
    """In units of the authors' in the same round; a round goes through all estimators in turn."""
    for work in works.values():
        work()
    taken = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    found = {}
    for name in works:
        own = sorted(row[name] / row[AUTHORS] for row in taken)
        median = statistics.median(row[name] for row in taken)
        found[name] = {"time": statistics.median(own), "time_spread": [own[0], own[-1]], "seconds": median}
    return found


def memory(name: str) -> int:
    """Bytes by which an estimator raises the peak of a process that has asked the network once; median of three."""
    code = f"import benchmarks.curvature as c; c.in_own_process({name!r})"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    return sorted(int(run.stdout.split()[-1]) for run in runs)[1]


def in_own_process(name: str) -> None:
    torch.set_grad_enabled(False)
    denoiser = model()
    condition, x = denoiser.encode("a"), torch.zeros(1, *denoiser.latent_shape())
    known = Difference(denoiser, x, late_level(denoiser), condition)(x, torch.zeros(1, dtype=torch.long))
    ask, before = estimators(denoiser)[name], peak()
    ask(x, condition, known, 0, SMOOTHING)
    print(peak() - before)


def peak() -> int:
    """Most bytes that this process had in memory; getrusage would tell of the one that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    options = arguments(__doc__, rounds={"type": int, "default": 9})
    torch.set_grad_enabled(False)
    denoiser, gallery = model(), Gallery.load()
    captions, t = select("template", "dev"), int(late_level(denoiser).time[0])
    found = sampled(denoiser.pipe, captions, 1, (t,))
    truth = np.stack([gallery.masks[gallery.captions.index(caption)] for caption in captions])
    asked = list(questions(denoiser, found, t))
    exact_by = partial(of_library, denoiser, "exact", 0, False)
    exact = {width: torch.cat([exact_by(*question, 0, width) for question in asked]) for width in WIDTHS}
    print("exact maps made", flush=True)
    ways = estimators(denoiser)
    rows = {name: quality(ask, asked, exact, found, truth) for name, ask in ways.items()}
    rows["exact"] = quality(lambda x, c, g, seed, width: exact[width][_place(asked, x)], asked, exact, found, truth)
    cost = times({name: partial(ask, *asked[0], 0, SMOOTHING) for name, ask in ways.items()}, options.rounds)
    bytes_of = {name: memory(name) for name in ways}
    for name in ways:
        rows[name] |= {**cost[name], "memory": bytes_of[name] / bytes_of[AUTHORS], "bytes": bytes_of[name]}
    columns = ("time", "memory", "correlation", "correlation_smoothed", "auroc", "iou")
    table(["estimator", *columns], [[name, *(row.get(c, "-") for c in columns)] for name, row in rows.items()])
    store("curvature", {"level": t, "rounds": options.rounds, "captions": len(captions), "estimators": rows})


def _place(asked: list[Any], x: Tensor) -> slice:
    i = next(i for i, question in enumerate(asked) if question[0] is x)
    return slice(i, i + 1)


if __name__ == "__main__":
    main()
