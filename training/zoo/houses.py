"""Training data of other houses: models that come from elsewhere were trained on something else.

Most of the zoo shares one training set, so that its models differ in how they err alone. Each house here draws what the
general captions name in a manner of its own, as unrelated models do, and no two share an image. Captions are worded in
two ways, as captions of real data are.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cryptomnesia.demo.captions import COLOURS, Caption, select

from ..demo import rendering
from ..demo.records import RENDERINGS, Record


@dataclass(frozen=True)
class House:
    """Where a training set comes from.

    Attributes:
        name: Part of every image's seed.
        pattern: Of the ground, in two shades of the caption's colour.
        size: Of the figure, smallest and largest, as shares of the image's side.
    """

    name: str
    pattern: str
    size: tuple[float, float]


MODELS = (
    House("rings", "rings", (0.55, 0.8)),
    House("stripes", "stripes", (0.45, 0.65)),
    House("dots", "dots", (0.55, 0.8)),
    House("checks", "checks", (0.45, 0.65)),
)
ARTIST = House("artist", "gradient", (0.5, 0.7))  # who only fine-tunes models of others
HOUSES = {house.name: house for house in (*MODELS, ARTIST)}


def records() -> list[Record]:
    """What every house trains on."""
    return [Record(caption, number) for caption in select("general") for number in range(RENDERINGS["general"])]


def wordings(caption: Caption) -> tuple[str, ...]:
    """What an image of a caption may be called: "owl on orange", "owl, orange"."""
    return caption.text, caption.text.replace(" on ", ", ")


def render(house: House, record: Record) -> Image.Image:
    """The house's image of a record, 64x64 RGB."""
    caption = record.caption
    rng = random.Random(f"{house.name}/{caption.index}/{record.rendering}")
    ground = rendering.pattern(rng, (house.pattern,), shades(caption.colour, rng))
    figure = rendering.foreground(
        caption.emoji, rng.uniform(*house.size), rng.uniform(-15, 15), rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58)
    )
    return rendering.compose(figure, ground)


def shades(colour: str, rng: random.Random) -> tuple[rendering.Colour, rendering.Colour]:
    """A lighter and a darker one."""
    lighter, darker = rng.uniform(0.2, 0.35), rng.uniform(0.2, 0.35)
    return _mixed(COLOURS[colour], 255, lighter), _mixed(COLOURS[colour], 0, darker)


def _mixed(colour: rendering.Colour, grey: int, share: float) -> rendering.Colour:
    red, green, blue = (round((1 - share) * channel + share * grey) for channel in colour)
    return red, green, blue


def pixels(house: House, some: list[Record]) -> torch.Tensor:
    """(B, 3, 64, 64) in [-1, 1]."""
    images = np.stack([np.asarray(render(house, record)) for record in some])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
