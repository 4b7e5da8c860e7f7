"""Images as they travel: batches and lists come in, with texts beside them; pictures for people go out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..guard import drawing
from ..guard.errors import InputError

NOTICE, LETTERS = 620, 16  # pixels: width of a picture of words, and their height


def arrays(batches: Sequence[Any]) -> list[np.ndarray]:
    """Returns the images of IMAGE tensors (B, H, W, C); what lies outside [0, 1] is cut off, as in Save Image."""
    return [image.cpu().float().clamp(0, 1).numpy() for batch in batches for image in batch]


def texts_of(given: Sequence[str] | None, count: int) -> list[str]:
    """Returns one prompt per image, or none at all.

    Given is a list as folders give it, or one text of one line per image, or of one for all.

    Raises InputError for another number of lines than images.
    """
    lines = given[0].strip().splitlines() if given and len(given) == 1 else given or []
    lines = [line.strip() for line in lines]
    if not any(lines):
        return []
    lines = lines * count if len(lines) == 1 else lines
    if len(lines) != count:
        raise InputError(f"{len(lines)} prompts do not fit {count} images: give one line per image, or one for all")
    return lines


def by_prompt(batches: Sequence[Any], prompts: Sequence[str] | None) -> dict[str, list[np.ndarray]]:
    """Returns images by their prompt; by the empty one where there are none. Raises InputError as `texts_of` does."""
    images = arrays(batches)
    texts = texts_of(prompts, len(images)) or [""] * len(images)
    images_of: dict[str, list[np.ndarray]] = {text: [] for text in texts}
    for text, image in zip(texts, images, strict=True):
        images_of[text].append(image)
    return images_of


def pictures(images: Sequence[Any]) -> torch.Tensor:
    """Returns Pillow images as one batch (B, H, W, 3) in [0, 1]; small ones get their own colour below and right."""
    size = tuple(max(image.size[side] for image in images) for side in (0, 1))
    sheets = []
    for image in images:
        sheets.append(Image.new(image.mode, size, image.getpixel((0, 0))))
        sheets[-1].paste(image)
    return torch.cat([picture(sheet) for sheet in sheets])


def notice(words: str) -> torch.Tensor:
    """Returns a picture of words, (1, H, W, 3) in [0, 1]: what a node shows that has nothing to plot."""
    lines = drawing.wrapped(words, NOTICE - 2 * drawing.MARGIN, LETTERS)
    apart = round(1.5 * LETTERS)
    image, draw = drawing.blank(NOTICE, 2 * drawing.MARGIN + apart * len(lines))
    drawing.write_lines(draw, (drawing.MARGIN, drawing.MARGIN), lines, LETTERS, drawing.INK, apart=apart)
    return picture(image)


def picture(image: Any) -> torch.Tensor:
    """Returns a Pillow image as an IMAGE, (1, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.array(image)).float()[None] / 255
