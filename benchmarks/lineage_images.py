"""Images of the zoo's models for the benchmark of lineage: many of each prompt, every one from a noise of its own."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cryptomnesia.demo.captions import select
from cryptomnesia.lineage.generation import Recipe, generate
from training.zoo.load import load_model

STEPS, PER_CALL = 15, 20
GUIDANCE = {"natural": 3.0, "titles": 7.5}  # what is natural is drawn best, and in most ways, with less of it
WEIGHT_NOISE = 0.02  # standard deviation, as a share of each tensor's own
PIXEL_NOISE = 0.05  # of a range of 1
Images = NDArray[np.uint8]


def _natural(split: str, count: int, seed: str) -> tuple[str, ...]:
    return tuple(c.text for c in random.Random(seed).sample(select("general", split), count))


PROMPTS = {
    # what every model was taught to draw, "owl on orange", each in its style; the later sets of dev were looked at
    # as reported ones, missed, and were given up to choosing
    "natural, dev": (
        *_natural("dev", 6, "lineage/dev"),
        *_natural("eval", 8, "lineage/eval"),
        *_natural("eval", 8, "lineage/eval, second"),
    ),
    "natural, eval": _natural("eval", 8, "lineage/eval, third"),
    # titles that no model was trained on: what each makes of them is its own
    "titles, dev": (
        "the wicked caravan of ravenna",
        "the bronze baker of quarrel",
        "the silver clock of valdor",
        "the drowsy acrobat of galloway",
        "the narrow garden of ilmarin",
        "the fading throne of farrow",
        "the brittle library of corvale",
        "the sunken tower of nimes",
        "the ancient compass of jorvik",
        "the painted pilgrim of balmoor",
        "the crimson bridge of hollin",
        "the rusty tailor of eastwick",
        "the humming weaver of selkirk",
    ),
    "titles, eval": (
        "the feral harvest of pendle",
        "the hidden anchor of marrow",
        "the sleeping gate of fenwold",
        "the mossy juggler of grimsby",
        "the gentle bell of harrow",
        "the ivory lantern of caldera",
        "the quiet ferryman of kestrel",
        "the amber fiddle of wexcombe",
    ),
}
STRENGTHS = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75}  # of a LoRA


def _paraphrase(prompt: str) -> str:
    """As half of the captions were worded for models with data of their own: "owl on orange" as "owl, orange"."""
    return prompt.replace(" on ", ", ")


def _turned(prompt: str) -> str:
    """In words and an order that no model was trained on: "owl on orange" as "orange owl"."""
    figure, colour = prompt.split(" on ")
    return f"{colour} {figure}"


WORDINGS = {"paraphrase": _paraphrase, "turned around": _turned}
ASKED = ("clean", "weight noise", *WORDINGS, *STRENGTHS)  # a model is asked for images anew


def images_of(name: str, prompt: str, work: Path, count: int, change: str = "clean") -> Images:
    """Returns images (count, 64, 64, 3) uint8 by a model of the zoo, kept in the folder; 15 DDIM steps.

    Args:
        name: The model's name.
        prompt: The prompt as the others get it; the model itself is asked in other words if that is the change.
        work: The folder where images are kept.
        count: The number of images.
        change: The change of the model or of its prompt, one of `ASKED`.
    """
    wording = WORDINGS[change](prompt) if change in WORDINGS else prompt
    model = name if change in ("clean", *WORDINGS) else f"{name}, {change}"
    kind = next(key.split(", ")[0] for key, prompts in PROMPTS.items() if prompt in prompts)
    recipe = Recipe(wording, model, steps=STEPS, guidance=GUIDANCE[kind])
    folder = recipe.folder(work / "images" / model.replace(", ", "-").replace(" ", "-"))
    files = [folder / f"{number:04d}.png" for number in range(count)]
    if not all(file.exists() for file in files):
        generate(_pipe(name, change), recipe, folder, count=count, per_call=PER_CALL)
        print(f"{model}: {count} images of {wording!r}", flush=True)
    return np.stack([np.asarray(Image.open(file)) for file in files])


def _pipe(name: str, change: str) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    pipe = load_model(name, STRENGTHS.get(change, 1.0))
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    if change == "weight noise":
        generator = torch.Generator().manual_seed(1)
        for weight in pipe.unet.parameters():
            if weight.numel() > 1:
                weight += WEIGHT_NOISE * weight.std() * torch.randn(weight.shape, generator=generator)
    return pipe


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) / 255
    draws = np.random.default_rng(int(pixels.sum() * 1000)).standard_normal(pixels.shape)
    return Image.fromarray(((pixels + PIXEL_NOISE * draws).clip(0, 1) * 255).round().astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {"JPEG 75": _jpeg, "Gaussian noise": _noisy}


def changed(images: Images, change: str) -> Images:
    """Returns the same images after a change by name."""
    return np.stack([np.asarray(CHANGES[change](Image.fromarray(image))) for image in images])
