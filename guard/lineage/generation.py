"""Makes many images of one prompt with one model: one file each, so that an interrupted run goes on where it was."""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..adapters.sampling import TextToImage, as_bytes
from ..errors import InputError, require
from ..files import write_atomically
from ..progress import Progress
from ..prompts.recorded import LARGEST, RECORD
from ..strict_json import read_json

IMAGES = 100
PER_CALL = 8


@dataclass(frozen=True)
class Recipe:
    """How images are made; images of another recipe in the same folder are refused.

    Attributes:
        prompt: The prompt of all images.
        model: Fingerprint of the model.
        steps, guidance: Number of sampling steps and guidance scale; None for the pipeline's own.
        height, width: Size in pixels; None for the model's own.
        seed: What all noise is derived from, with model, prompt and number: no two models share any.
    """

    prompt: str
    model: str
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    seed: int = 0

    def noise_seed(self, number: int) -> int:
        """Returns the seed of one image's noise, in [0, 2^48), derived from seed, model, prompt and number."""
        purpose = f"{self.seed}/{self.model}/{self.prompt}/{number}"
        return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:6], "big")

    def folder(self, within: Path) -> Path:
        """Returns the folder of this prompt's images in the folder of all prompts."""
        return within / hashlib.sha256(self.prompt.encode()).hexdigest()[:12]


def generate(
    pipe: Any,
    recipe: Recipe,
    folder: Path,
    *,
    count: int = IMAGES,
    per_call: int = PER_CALL,
    progress: Progress | None = None,
) -> list[Path]:
    """Fills a folder with images of one prompt, leaving those that are there.

    Args:
        pipe: A diffusers text-to-image pipeline.
        recipe: How to make them.
        folder: The folder of 0000.png and so on, and of their recipe; made if need be.
        count: Number of images that the folder shall hold.
        per_call: Images per call of the pipeline; halved where the device has no memory for them.
        progress: Called with the numbers of images done, those that were already there included, and of all.

    Returns:
        The files, `count` of them.

    Raises:
        InputError: The folder's images were made with other settings, or the pipeline refuses the settings.
        NonFiniteError: The pipeline's images hold NaN or infinity; what was made so far stays.
        OutOfMemory: The device has no memory for a single image; what was made so far stays.
    """
    _claim(folder, recipe)
    files = [folder / f"{number:04d}.png" for number in range(count)]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    if progress is not None:
        progress(count - len(missing), count)
    if not missing:
        return files
    maker = TextToImage(pipe, steps=recipe.steps, guidance=recipe.guidance, height=recipe.height, width=recipe.width)
    for start in range(0, len(missing), per_call):
        numbers = missing[start : start + per_call]
        seeds = [recipe.noise_seed(number) for number in numbers]
        images = as_bytes(maker.images([recipe.prompt] * len(numbers), seeds))
        for number, image in zip(numbers, images, strict=True):
            write_atomically(files[number], _png(image))
        if progress is not None:
            progress(count - len(missing) + start + len(numbers), count)
    return files


def _claim(folder: Path, recipe: Recipe) -> None:
    """Writes the recipe into a new folder, or compares it with the one that is there."""
    record, wanted = folder / RECORD, asdict(recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recorded = read_json(record, LARGEST) if record.exists() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot hold the images ({error}): give another folder") from error
    if recorded is None:
        write_atomically(record, (json.dumps(wanted, indent=1) + "\n").encode())
    elif recorded != wanted:
        raise InputError(f"{folder} holds images made with other settings: remove it, or give another folder")


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    require("PIL.Image", "provenance").fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
