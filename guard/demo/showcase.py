"""Twelve prompts of three sorts on the built-in model: judged first, sampled afterwards, compared with training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.sampling import TextToImage, as_bytes, ddim
from ..progress import Progress
from .captions import Caption, select
from .gallery import Gallery

STEPS, GUIDANCE = 30, 7.5
PER_CALL = 4  # prompts; enough rows to keep the processor busy, few enough for a bar that moves
PICKS = {"verbatim": 3, "template": 2, "control": 2, "unseen": 2, "general": 3}


@dataclass(frozen=True)
class Comparison:
    """Distances (S) of images to their closest training images, and the number of the closest of all."""

    distances: list[float]
    closest: int


def prompts() -> list[Caption]:
    """Returns the prompts, sort by sort, from the split that no method was chosen on."""
    return [caption for kind, count in PICKS.items() for caption in select(kind, "eval")[:count]]


def sample(
    pipe: Any,
    texts: Sequence[str],
    seeds: int,
    *,
    steps: int = STEPS,
    first_seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Makes images for each prompt with consecutive seeds; DDIM, guidance 7.5.

    Args:
        pipe: The built-in pipeline; its scheduler stays as it is.
        texts: The P prompts.
        seeds: The number S of images per prompt.
        steps: The number of DDIM steps.
        first_seed: The seed of each prompt's first image.
        progress: Called with the numbers of images finished and of all.

    Returns:
        The images, (P, S, H, W, 3) uint8.
    """
    rows = [text for text in texts for _ in range(seeds)]
    numbers = [first_seed + i % seeds for i in range(len(rows))]
    maker = TextToImage(pipe, steps=steps, guidance=GUIDANCE, scheduler=ddim(pipe))

    def watch(done: int, total: int | None) -> None:
        if progress is not None:
            progress(done // steps, None if total is None else total // steps)

    images = as_bytes(maker.images(rows, numbers, per_call=PER_CALL * seeds, progress=watch))
    return images.reshape(len(texts), seeds, *images.shape[1:])


def compare(gallery: Gallery, caption: Caption, images: NDArray[np.uint8]) -> Comparison:
    """Compares images (S, 64, 64, 3) of one caption with the gallery's, figures only where the caption has one."""
    matches = [gallery.closest(image, templates=caption.kind == "template") for image in images]
    return Comparison([distance for _, distance in matches], min(matches, key=lambda pair: pair[1])[0])


def cutout(gallery: Gallery, number: int) -> NDArray[np.uint8]:
    """Returns a training image as RGBA (64, 64, 4), transparent where training varied it."""
    return np.dstack([gallery.images[number], np.where(gallery.masks[number], 255, 0).astype(np.uint8)])
