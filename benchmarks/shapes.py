"""What the library asks of networks of real models' shapes: `python -m benchmarks.shapes`.

Rows are counted on pipelines of the true geometry whose networks compute nothing; the memory of such calls is traced on
networks of the true shape on the meta device. With --real ROUNDS Stable Diffusion 1.5 also runs at full width on this
CPU (6 GB, some minutes a round), with --cuda all of them in 16 bits on a GPU.
"""

import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from cryptomnesia import Guard
from cryptomnesia.attribution import attribute
from cryptomnesia.cost import rows_per_image
from cryptomnesia.membership.measure import measure
from cryptomnesia.prompts import benign
from cryptomnesia.signals.spectral import signature

from . import shapes_real
from .common import arguments, store, stored_models
from .hollow import SD_SCHEDULE, Asked, hollow
from .true_shapes import SHAPES, TrueShape

MEMORY = "memory, of a guided step's"
STEPS, DRAWS, IMAGES = (20, 30, 50), (1, 4), 16
LESS: dict[str, Any] = {"height": 256, "width": 256}  # where rows are counted that do not depend on the size
SAMPLERS: dict[str, Callable[[], Any]] = {
    **{
        f"DDIM, {spacing}": lambda spacing=spacing: DDIMScheduler(
            **SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False, timestep_spacing=spacing
        )
        for spacing in ("leading", "trailing")
    },
    **{
        f"PNDM, {spacing}": lambda spacing=spacing: PNDMScheduler(
            **SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, timestep_spacing=spacing
        )
        for spacing in ("leading", "trailing")
    },
    **{
        f"Euler, {spacing}": lambda spacing=spacing: EulerDiscreteScheduler(**SD_SCHEDULE, timestep_spacing=spacing)
        for spacing in ("leading", "trailing", "linspace")
    },
    **{
        f"DPM++ 2M Karras, {spacing}": lambda spacing=spacing: DPMSolverMultistepScheduler(
            **SD_SCHEDULE, use_karras_sigmas=True, timestep_spacing=spacing
        )
        for spacing in ("leading", "trailing", "linspace")
    },
}


def costs(name: str) -> dict[str, Any]:
    """What each kind of work asks of that model's network and autoencoder."""
    pipe, asked = hollow(name)
    guard = Guard(pipe)
    denoiser: Any = guard.denoiser
    latent = torch.randn(1, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(0))
    side = SHAPES[name].pixels
    pictures = list(torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(1)))
    texts, report = benign()[:64], Guard(pipe).check("a cat")
    own = _sampled(pipe, asked, 50)
    found: dict[str, Any] = {"rows of an image of 50 steps": rows_per_image(denoiser)}
    works: dict[str, tuple[int, Callable[[], Any]]] = {
        "check, first prompt": (1, lambda: guard.check("a cat")),
        "check, another prompt": (1, lambda: guard.check("a dog")),
        "check, each of 64 prompts": (64, lambda: list(guard.check_many(texts))),
        "calibration": (1, lambda: Guard(pipe).calibrate()),
        "signature, 5step, one image": (1, lambda: signature(denoiser, latent, plan="5step")),
        "signature, 1step, one image": (1, lambda: signature(denoiser, latent, plan="1step")),
        f"attribute, each of {IMAGES} images": (IMAGES, lambda: attribute(pictures, {"one": pipe})),
        "attribute, one image with its prompt": (1, lambda: attribute(pictures[:1], {"one": pipe}, prompts="a cat")),
        "map, beside check and image": (1, lambda: guard.locate("a cat", steps=50, report=report)),
        f"membership, each of {IMAGES} images": (IMAGES, lambda: measure(denoiser, pictures)),
    }
    for work, (count, do) in works.items():
        with asked.watched() as seen, torch.no_grad():
            do()
        rows = seen.rows
        if work.startswith("map"):
            rows -= own
        found[work] = _cost(SHAPES[name], rows / count, seen, found["rows of an image of 50 steps"])
    return found


def _sampled(pipe: Any, asked: Asked, steps: int, **size: int) -> int:
    """Rows that the network is asked about while the pipeline makes an image."""
    with asked.watched() as seen:
        pipe("a cat", num_inference_steps=steps, output_type="latent", **size)
    return seen.rows


def _cost(shape: TrueShape, rows: float, seen: Asked, image: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rows": rows,
        "images": rows / image,
        "largest call": seen.largest[0],
        MEMORY: shape.peak(*seen.largest) / shape.peak(shape.branches),
    }
    if seen.coded:
        largest = {way: max((n for w, n in seen.coded if w == way), default=0) for way in ("encode", "decode")}
        found["autoencoder"] = {
            "images that pass": sum(n for _, n in seen.coded),
            "largest": largest,
            "GB": max(shape.autoencoder_peak(way, n) for way, n in largest.items() if n) / 1e9,
        }
    return found


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def memory(shape: TrueShape) -> dict[str, Any]:
    """MB above the weights, of the pipeline's own guided step and of decoding its image."""
    return {
        "weights": shape.parameters,
        **{
            _named(dtype): {
                "guided step": shape.peak(shape.branches, dtype=dtype) / 1e6,
                "decoding one image": shape.autoencoder_peak("decode", 1, dtype) / 1e6,
            }
            for dtype in (shape.half, torch.float32)
        },
    }


def attached(name: str, samplers: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What an attached guard adds to a pipeline's own rows, for the first image and for later ones."""
    found: dict[str, Any] = {}
    for sampler, scheduler in samplers.items():
        pipe, asked = hollow(name, scheduler())
        own = {steps: _sampled(pipe, asked, steps, **LESS) for steps in STEPS}
        for draws in DRAWS:
            usual = Guard(pipe).calibrate(benign()[:100], draws=draws, **LESS)
            for steps in STEPS:
                at_start = Guard(pipe).calibrate(benign()[:100], draws=draws, steps=steps, **LESS)
                for words, calibration in (("", usual), (", calibrated for them", at_start)):
                    with Guard(pipe, calibration).attached():
                        first, later = (_sampled(pipe, asked, steps, **LESS) - own[steps] for _ in range(2))
                    row = {"own": own[steps], "first": first, "later": later}
                    found.setdefault(f"{draws} draws, {steps} steps{words}", {})[sampler] = row
    return found


def _worst(found: dict[str, Any]) -> dict[str, float]:
    """Guarded over unguarded rows, by draws and steps, of the sampler where that is most."""
    return {key: max(1 + row["later"] / row["own"] for row in rows.values()) for key, rows in found.items()}


def show(document: dict[str, Any]) -> None:
    """Prints the tables of docs/results.md."""
    models = document["models"]

    def rows(cells: dict[str, Callable[[dict[str, Any]], str]]) -> None:
        print("\n| |" + "".join(f" {name} |" for name in models) + "\n|" + "---|" * (len(models) + 1))
        for what, cell in cells.items():
            print(f"| {what} |" + "".join(f" {cell(model)} |" for model in models.values()))

    def work(name: str, model: dict[str, Any]) -> str:
        found = model["costs"][name]
        rounded = f"{found['rows']:,.0f}" if found["rows"] >= 10 else f"{found['rows']:.2g}"
        return f"{rounded} / {found['images']:.2f} / {found[MEMORY]:.1f}"

    def half(model: dict[str, Any], what: str) -> float:
        return next(part for part in model["memory"].values() if isinstance(part, dict))[what]

    works = [name for name, found in next(iter(models.values()))["costs"].items() if isinstance(found, dict)]
    print("\nrows of the network / as many images of 50 steps / memory of the largest call, of a guided step's")
    rows({name: lambda model, name=name: work(name, model) for name in works})
    coded = f"attribute, each of {IMAGES} images"
    rows(
        {
            "a guided step, MB": lambda model: f"{half(model, 'guided step'):,.0f}",
            "decoding an image, GB": lambda model: f"{half(model, 'decoding one image') / 1000:.1f}",
            "the autoencoder in `attribute`, GB": lambda model: f"{model['costs'][coded]['autoencoder']['GB']:.1f}",
        }
    )
    print("\nguarded / unguarded rows, with the sampler where that is most, from the second image on")
    ratios = next(iter(models.values()))["attached, worst"]
    rows({key: lambda model, key=key: f"{model['attached, worst'][key]:.3f}" for key in ratios})


def main() -> None:
    options = arguments(
        __doc__,
        real={"type": int, "default": 0, "metavar": "ROUNDS", "help": "also run SD 1.5 at full width on this CPU"},
        only={"nargs": "*", "default": list(SHAPES), "metavar": "MODEL", "help": "count these; the others as stored"},
        cuda={"action": "store_true", "help": "also run all of them on a GPU"},
    )
    warnings.simplefilter("ignore")
    models = stored_models("shapes")
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRYPTOMNESIA_HOME"] = home
        for name in options.only:
            shape = SHAPES[name]
            samplers = {"its own": lambda: None} | (SAMPLERS if "SD 1.5" in name or "SDXL" in name else {})
            found = attached(name, samplers)
            models[name] = {
                "memory": memory(shape),
                "costs": costs(name),
                "attached": found,
                "attached, worst": _worst(found),
            }
            print(f"{name}: counted", flush=True)
    document: dict[str, Any] = {"models": {name: models[name] for name in SHAPES if name in models}}
    if options.real:
        document["real"] = shapes_real.on_cpu(options.real)
    if options.cuda:
        document["cuda"] = shapes_real.on_cuda(models)
    show(document)
    store("shapes", document)


if __name__ == "__main__":
    main()
