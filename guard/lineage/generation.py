"""Makes many images of one prompt with one model: one file each, so that an interrupted run goes on where it was."""

import hashlib
import inspect
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..adapters.guidance import guidance_arguments
from ..errors import InputError, NonFiniteError, require
from ..files import write_atomically
from ..memory import memory_needed
from ..prompts.recorded import LARGEST, RECORD
from ..strict_json import read_json

IMAGES = 100
PER_CALL = 8


@dataclass(frozen=True)
class Recipe:
    """How images are made; images of another recipe in the same folder are refused.

    Attributes:
        prompt: Its text.
        model: Fingerprint of the model.
        steps, guidance: None for the pipeline's own.
        height, width: In pixels; None for the model's own.
        seed: Every image has a noise of its own, drawn from seed, model and prompt: no two models share any.
    """

    prompt: str
    model: str
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    seed: int = 0

    def noise_seed(self, number: int) -> int:
        """Of one image."""
        purpose = f"{self.seed}/{self.model}/{self.prompt}/{number}"
        return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:6], "big")

    def folder(self, within: Path) -> Path:
        """Where this prompt's images lie."""
        return within / hashlib.sha256(self.prompt.encode()).hexdigest()[:12]


def generate(
    pipe: Any,
    recipe: Recipe,
    folder: Path,
    *,
    count: int = IMAGES,
    per_call: int = PER_CALL,
    advance: Callable[[int], None] | None = None,
) -> list[Path]:
    """Fills a folder with images of one prompt, leaving those that are there.

    Args:
        pipe: A diffusers text-to-image pipeline.
        recipe: How to make them.
        folder: Holds 0000.png and so on, and their recipe.
        count: How many there shall be.
        per_call: Images per call of the pipeline.
        advance: Called with the number of images found or made since the last call.

    Returns:
        The files, `count` of them.

    Raises:
        InputError: The folder's images were made otherwise, or the pipeline refuses the settings.
        NonFiniteError, OutOfMemory: As they say. What was made so far stays.
    """
    _claim(folder, recipe)
    files = [folder / f"{number:04d}.png" for number in range(count)]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    if advance is not None:
        advance(count - len(missing))
    for start in range(0, len(missing), per_call):
        numbers = missing[start : start + per_call]
        for number, image in zip(numbers, _sampled(pipe, recipe, numbers), strict=True):
            write_atomically(files[number], _png(image))
        if advance is not None:
            advance(len(numbers))
    return files


def _claim(folder: Path, recipe: Recipe) -> None:
    """Writes the recipe into a new folder, or compares it with the one that is there."""
    record, wanted = folder / RECORD, asdict(recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = read_json(record, LARGEST) if record.exists() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot hold the images ({error}): give another folder") from error
    if found is None:
        write_atomically(record, (json.dumps(wanted, indent=1) + "\n").encode())
    elif found != wanted:
        raise InputError(f"{folder} holds images that were made otherwise: remove it, or give another folder")


def _sampled(pipe: Any, recipe: Recipe, numbers: list[int]) -> Iterator[Any]:
    """(H, W, 3) uint8 each."""
    import numpy as np
    import torch

    arguments = _arguments(pipe, recipe, len(numbers))
    arguments["generator"] = [torch.Generator().manual_seed(recipe.noise_seed(number)) for number in numbers]
    pipe.set_progress_bar_config(disable=True)
    try:
        with memory_needed(f"the device has no memory for {len(numbers)} images in one call: make fewer"):
            made = pipe([recipe.prompt] * len(numbers), output_type="np", **arguments).images
    except ValueError as error:
        raise InputError(f"{type(pipe).__name__} refuses to sample: {error}") from error
    if not np.isfinite(made).all():
        raise NonFiniteError("the model made an image with NaN or infinity: use another dtype")
    yield from (made * 255).round().astype(np.uint8)


def _arguments(pipe: Any, recipe: Recipe, count: int) -> dict[str, Any]:
    """What this pipeline calls the recipe's settings; what is None is left to it."""
    known = inspect.signature(type(pipe).__call__).parameters
    if "strength" in known:
        raise InputError(f"{type(pipe).__name__} starts from an image: give a text-to-image pipeline")
    settings = {"num_inference_steps": recipe.steps, "height": recipe.height, "width": recipe.width}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if "use_resolution_binning" in known and (recipe.height or recipe.width):
        given["use_resolution_binning"] = False  # the size that was asked for, and no other
    return given | guidance_arguments(pipe, known, recipe.guidance, prompts=count)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    require("PIL.Image", "provenance").fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
