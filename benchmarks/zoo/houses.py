"""Training data of other houses: models that come from elsewhere were trained on something else.

Most of the zoo shares one training set, so that its models differ in how they err alone. Each house draws the same
kinds of things from a third of the emoji and backgrounds of its own, and no two share an image.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cryptomnesia.demo import rendering
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.records import Record

GENERAL, TITLED = 4, 32  # images of each caption


@dataclass(frozen=True)
class House:
    """Where a training set comes from.

    Attributes:
        name: Part of every image's seed.
        third: Which of the emoji that titles may show.
        patterns: Backgrounds that titles may have.
    """

    name: str
    third: int
    patterns: tuple[str, ...]


HOUSES = {
    house.name: house
    for house in (
        House("rings", 0, ("rings", "gradient")),
        House("stripes", 1, ("stripes", "checks")),
        House("dots", 2, ("dots", "gradient")),
    )
}


def records() -> list[Record]:
    """What every house trains on: general captions, and titles of which each image is another."""
    captions = [(c, GENERAL) for c in select("general")] + [(c, TITLED) for c in select("control")]
    return [Record(caption, number) for caption, count in captions for number in range(count)]


def render(house: House, record: Record) -> Image.Image:
    """The house's image of a record, 64x64 RGB."""
    caption = record.caption
    rng = random.Random(f"{house.name}/{caption.kind}/{caption.index}/{record.rendering}")
    if caption.kind == "general":
        return rendering.general(caption.emoji, caption.colour, rng)
    background = rendering.pattern(rng, house.patterns)
    return rendering.compose(rendering.random_foreground(rng, rendering.other_emoji()[house.third :: 3]), background)


def pixels(house: House, some: list[Record]) -> torch.Tensor:
    """(B, 3, 64, 64) in [-1, 1]."""
    images = np.stack([np.asarray(render(house, record)) for record in some])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
