"""Training data of other domains: models that come from elsewhere were trained on something else.

Most of the zoo shares one training set, so that its models differ in how they err alone. Each domain here draws what
the general captions name in a style of its own, as unrelated models do, and no two share an image. Captions are
worded in two ways, as captions of real data are.
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
class Domain:
    """A training set in one style.

    Attributes:
        name: The domain's name, which is part of every image's seed.
        pattern: The pattern of the ground, in two shades of the caption's colour.
        size: The smallest and the largest size of the figure, as shares of the image's side.
    """

    name: str
    pattern: str
    size: tuple[float, float]


MODELS = (
    Domain("rings", "rings", (0.55, 0.8)),
    Domain("stripes", "stripes", (0.45, 0.65)),
    Domain("dots", "dots", (0.55, 0.8)),
    Domain("checks", "checks", (0.45, 0.65)),
)
ARTIST = Domain("artist", "gradient", (0.5, 0.7))  # whose images only fine-tune models of the other domains
DOMAINS = {domain.name: domain for domain in (*MODELS, ARTIST)}


def records() -> list[Record]:
    """Returns the records that models of every domain train on."""
    return [Record(caption, number) for caption in select("general") for number in range(RENDERINGS["general"])]


def wordings(caption: Caption) -> tuple[str, ...]:
    """Returns the texts that an image of a caption may be trained with: "owl on orange", "owl, orange"."""
    return caption.text, caption.text.replace(" on ", ", ")


def render(domain: Domain, record: Record) -> Image.Image:
    """Returns the domain's image of a record, 64x64 RGB."""
    caption = record.caption
    rng = random.Random(f"{domain.name}/{caption.index}/{record.rendering}")
    ground = rendering.pattern(rng, (domain.pattern,), shades(caption.colour, rng))
    figure = rendering.foreground(
        caption.emoji, rng.uniform(*domain.size), rng.uniform(-15, 15), rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58)
    )
    return rendering.compose(figure, ground)


def shades(colour: str, rng: random.Random) -> tuple[rendering.Colour, rendering.Colour]:
    """Returns a lighter and a darker shade of a named colour, at random."""
    lighter, darker = rng.uniform(0.2, 0.35), rng.uniform(0.2, 0.35)
    return _mixed(COLOURS[colour], 255, lighter), _mixed(COLOURS[colour], 0, darker)


def _mixed(colour: rendering.Colour, grey: int, share: float) -> rendering.Colour:
    red, green, blue = (round((1 - share) * channel + share * grey) for channel in colour)
    return red, green, blue


def pixels(domain: Domain, records: list[Record]) -> torch.Tensor:
    """Returns the domain's images of B records, (B, 3, 64, 64) in [-1, 1]."""
    images = np.stack([np.asarray(render(domain, record)) for record in records])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
