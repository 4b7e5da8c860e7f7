"""Is a prompt really reproduced? Images of several seeds are near-copies of each other, or of a reference image.

The distance of two images is the largest root mean square difference, in [0, 1], over a grid of 4 x 4 tiles; below .15
they are near-copies (Carlini et al. 2023, arXiv 2301.13188, who take tiles so that a plain ground alone is no
likeness). A figure on changing backgrounds is no near-copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..images import images_among, no_images
from ..pixels import fitted, read_picture
from ..prompts.recorded import alike, recorded_prompt

LIMIT = 0.15
TILES = 4
LEAST_SHARE = 0.5  # of the other seeds, or of all seeds for a reference
THUMBNAIL = 160  # pixels


@dataclass(frozen=True)
class Reproduction:
    """How much the images of one prompt are alike.

    Attributes:
        between: Share of the other seeds' images that are near-copies of the image that has the most; None for one.
        nearest: The smallest distance of two of the images, in [0, 1]; None for one.
        to_reference: Each image's distance to the reference, in [0, 1]; None where there is none.
    """

    between: float | None
    nearest: float | None
    to_reference: list[float] | None

    @property
    def reproduced(self) -> bool:
        """Whether at least half of the seeds come to the reference or, where there is none, to one image."""
        if self.to_reference is not None:
            return float(np.mean([distance < LIMIT for distance in self.to_reference])) >= LEAST_SHARE
        return self.between is not None and self.between >= LEAST_SHARE


def tile_distances(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the distance of each pair, (A, B), of images (A, H, W, 3) and others (B, H, W, 3) of the same size.

    Raises InputError for images of fewer than 4 x 4 pixels.
    """
    height, width = images.shape[1:3]
    if min(height, width) < TILES:
        raise InputError(f"images of {width}x{height} pixels are too small to compare: make larger ones")
    rows, columns = (np.linspace(0, side, TILES + 1).round().astype(int)[:-1] for side in (height, width))
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width])) * 3
    found = np.empty((len(images), len(others)))
    for i, image in enumerate(images):
        for j, other in enumerate(others):
            squares = np.square((image.astype(np.float32) - other) / 255).sum(-1)
            tiles = np.add.reduceat(np.add.reduceat(squares, rows, 0), columns, 1)
            found[i, j] = np.sqrt((tiles / sizes).max())
    return found


def reproduction(images: NDArray[np.uint8], reference: NDArray[np.uint8] | None) -> Reproduction:
    """Returns how much the images (S, H, W, 3) of one prompt are alike, and like its reference (H, W, 3)."""
    apart = None if reference is None else tile_distances(images, reference[None])[:, 0].tolist()
    if len(images) < 2:
        return Reproduction(None, None, apart)
    distances = tile_distances(images, images)
    np.fill_diagonal(distances, np.inf)
    between = float((distances < LIMIT).mean(1).max() * len(images) / (len(images) - 1))
    return Reproduction(between, float(distances.min()), apart)


@dataclass(frozen=True)
class References:
    """Training images by the prompts that they belong to.

    Attributes:
        files: The images' files, by prompts as `alike` has them.
        notes: What is to be said of the folder, a line each.
    """

    files: dict[str, Path]
    notes: list[str]

    def of(self, prompt: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Returns the prompt's image, cut to that height and width around its centre; None where there is none."""
        file = self.files.get(alike(prompt))
        return None if file is None else as_array(fitted(read_picture(file), size))


def read_references(folder: Path, prompts: Iterable[str]) -> References:
    """Returns the images of a folder that belong to these prompts, as a text file beside each, or its metadata, says.

    Raises:
        InputError: There is no such folder, it holds no images, none that belongs to a prompt, or one of these cannot
            be used.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} of references: check the name")
    images = images_among(folder.rglob("*"))
    if not images:
        raise no_images(folder)
    wanted = {alike(prompt) for prompt in prompts}
    files: dict[str, Path] = {}
    for image in images:
        prompt = recorded_prompt(image)
        if prompt is not None and alike(prompt) in wanted:
            files.setdefault(alike(prompt), image)
            read_picture(image)  # what is wrong with it is found before the long work
    if not files:
        raise InputError(
            f"none of the {len(images)} images in {folder} has a memorized prompt in a text file of its name beside "
            "it: put NAME.txt with the prompt beside NAME.png, or leave out --references"
        )
    notes = []
    if len(files) < len(images):
        notes.append(f"{folder}: {len(images) - len(files)} of {len(images)} images belong to no memorized prompt")
    if len(files) < len(wanted):
        notes.append(f"{folder}: {len(wanted) - len(files)} of {len(wanted)} memorized prompts have no reference")
    return References(files, notes)


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images (S, H, W, 3), scaled so that no side is longer than THUMBNAIL pixels."""
    height, width = images.shape[1:3]
    scale = min(1.0, THUMBNAIL / max(height, width))
    if scale == 1:
        return images
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    return (small * 255).round().byte().permute(0, 2, 3, 1).numpy()


def as_array(picture: Any) -> NDArray[np.uint8]:
    """Returns a picture (1, 3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (picture[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
