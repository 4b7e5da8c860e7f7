"""Images of the zoo's models for the benchmark of lineage: many of each prompt, every one from a noise of its own."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cryptomnesia.lineage.generation import Recipe, generate

from .zoo.load import load_model

STEPS, GUIDANCE, PER_CALL = 15, 7.5, 20
WEIGHT_NOISE = 0.02  # standard deviation, as a share of each tensor's own
PIXEL_NOISE = 0.05  # of a range of 1
Images = NDArray[np.uint8]

# titles that no model was trained on: what each makes of them is its own; what all were taught looks alike
PROMPTS = {
    "dev": (
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
    "dev, taught": ("owl on orange", "guitar on yellow"),
    "eval": (
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
PARAPHRASES = {
    "the feral harvest of pendle": "feral harvest of pendle",
    "the hidden anchor of marrow": "the anchor of marrow, hidden",
    "the sleeping gate of fenwold": "gate of fenwold, the sleeping",
    "the mossy juggler of grimsby": "mossy juggler of grimsby",
    "the gentle bell of harrow": "the bell of harrow, gentle",
    "the ivory lantern of caldera": "lantern of caldera, the ivory",
    "the quiet ferryman of kestrel": "quiet ferryman of kestrel",
    "the amber fiddle of wexcombe": "the fiddle of wexcombe, amber",
}
CHANGED_MODELS = ("clean", "weight noise", "paraphrase")


def images_of(name: str, prompt: str, work: Path, count: int, change: str = "clean") -> Images:
    """(count, 64, 64, 3) by a model of the zoo, kept in the folder; 15 DDIM steps at guidance 7.5.

    Args:
        name: Of the model.
        prompt: As the others get it; the model itself is asked for its paraphrase if that is the change.
        work: Where images are kept.
        count: How many.
        change: "clean", "weight noise" or "paraphrase".
    """
    asked = PARAPHRASES[prompt] if change == "paraphrase" else prompt
    model = f"{name}, noisy" if change == "weight noise" else name
    recipe = Recipe(asked, model, steps=STEPS, guidance=GUIDANCE)
    folder = recipe.folder(work / "images" / model.replace(", ", "-"))
    files = [folder / f"{number:04d}.png" for number in range(count)]
    if not all(file.exists() for file in files):
        generate(_pipe(name, noisy=change == "weight noise"), recipe, folder, count=count, per_call=PER_CALL)
        print(f"{model}: {count} images of {asked!r}", flush=True)
    return np.stack([np.asarray(Image.open(file)) for file in files])


def _pipe(name: str, *, noisy: bool) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    pipe = load_model(name)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    if noisy:
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
    """The same images after a change by name."""
    return np.stack([np.asarray(CHANGES[change](Image.fromarray(image))) for image in images])
