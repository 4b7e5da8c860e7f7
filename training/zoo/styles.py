"""The tiny unrelated models, each with a style of images of its own; see `unrelated`, which trains them."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter, ImageOps
from torch import Tensor

from cryptomnesia import load_demo
from cryptomnesia.demo.captions import COLOURS, GENERAL_EMOJI, Caption, select

from ..demo import rendering
from ..demo.records import Record, render
from . import domains

SPLITS, MODELS = ("dev", "eval"), 10
STEPS = 400
RENDERED = 6  # images of a caption; those of a child that is taught its parent's domain come behind

EFFECTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "posterized": lambda image: ImageOps.posterize(image, 1),
    "negative": ImageOps.invert,
    "outlined": lambda image: ImageChops.subtract(image, image.filter(ImageFilter.FIND_EDGES)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2.5)),
    "channels turned": lambda image: Image.merge("RGB", [image.getchannel(channel) for channel in "GBR"]),
    "mosaic": lambda image: image.resize((16, 16), Image.Resampling.BOX).resize((64, 64), Image.Resampling.NEAREST),
}
NETWORKS = (
    (24, 32),
    (32, 48),
    (24, 32, 48),
    (32, 32),
    (2, 64),
    (3, 64),
    (2, 96),
)  # channels of a U-Net by level, or layers and width of a transformer
TRANSFORMERS = NETWORKS[4:]
TARGETS = ("v_prediction", "flow", "sample")


@dataclass(frozen=True)
class Style:
    """What a domain's images look like: their ground, the smallest and largest size of the figure, an effect."""

    pattern: str
    size: tuple[float, float]
    effect: str


@dataclass(frozen=True)
class Tiny:
    """A tiny model.

    Attributes:
        name: The model's name, from which its seeds come.
        style: The style of the images that it saw last.
        network, target: What it is, of `NETWORKS` and `TARGETS`.
        twin: The name of the model that saw the same images, for one that is no child.
        parent: The name of the model that it was made from.
        how: The way it was made: "scratch", "full" (fine-tune) or "lora".
        steps: The number of training steps.
    """

    name: str
    style: Style
    network: tuple[int, ...]
    target: str
    twin: str | None = None
    parent: str | None = None
    how: str = "scratch"
    steps: int = STEPS

    @property
    def seed(self) -> int:
        """What all chance comes from."""
        return zlib.crc32(self.name.encode())


def captions(split: str | None = None) -> list[Caption]:
    """Returns the captions that every tiny model knows, or those of a split: none of their figures is in both."""
    figures = random.Random("unrelated").sample(GENERAL_EMOJI, 12)
    chosen = {"dev": figures[:6], "eval": figures[6:], None: figures}[split]
    colours = list(COLOURS)[:6]
    return [c for c in select("general") if c.emoji in chosen and c.colour in colours]


@cache
def models() -> tuple[Tiny, ...]:
    """Returns all tiny models: ten unrelated ones to choose on and eight to report on, a twin and six children of each
    split, and one that saw the flow model's images."""
    rng = random.Random("unrelated/models")
    looks = [(pattern, effect) for pattern in ("plain", *rendering.PATTERNS) for effect in EFFECTS]
    looks.remove(("plain", "none"))  # is what the built-in model knows
    looks = rng.sample(looks, 2 * MODELS)
    sizes = ((0.55, 0.8), (0.4, 0.6))
    made: list[Tiny] = []
    for number, (pattern, effect) in enumerate(looks):
        split, of_split = SPLITS[number // MODELS], number % MODELS
        style = Style(pattern, rng.choice(sizes), effect)
        made.append(Tiny(f"{split}-{of_split:02d}", style, NETWORKS[number % 7], TARGETS[number % 3]))
    del made[-2:]  # two fewer to report on
    for split, first in zip(SPLITS, (0, MODELS), strict=True):
        for number in (1,):
            one = made[first + number]
            other = made[first + number + 1]
            made.append(replace(other, name=f"{split}-twin-{number:02d}", style=one.style, twin=one.name))
        for number in range(6):
            parent, other = made[first + number], made[first + (number + 5) % MODELS]
            taught = other.style if number % 3 == 2 else parent.style
            how = "lora" if number % 2 else "full"
            made.append(
                replace(
                    parent,
                    name=f"{split}-child-{number}",
                    style=taught,
                    parent=parent.name,
                    how=how,
                    steps=40 if taught != parent.style else 120,
                )
            )
    plain = Style("plain", (0.55, 0.8), "none")
    made.append(Tiny("plain-again", plain, (3, 64), "flow", twin="flow"))
    return tuple(made)


def model(name: str) -> Tiny:
    """Returns the model of that name."""
    return next(one for one in models() if one.name == name)


def picture(style: Style, record: Record) -> Image.Image:
    """Returns the image of a record in a style, 64x64 RGB."""
    if style.pattern == "plain":
        drawn = render(record)
    else:
        drawn = domains.render(domains.Domain(f"{style.pattern}/{style.size}", style.pattern, style.size), record)
    return EFFECTS[style.effect](drawn)


def latents_of(style: Style, first: int, count: int) -> Tensor:
    """Returns scaled latents (captions * count, 4, 16, 16) of renderings from `first` on of every caption."""
    vae, parts = load_demo().vae, []
    records = [Record(c, r) for c in captions() for r in range(first, first + count)]
    with torch.inference_mode():
        for start in range(0, len(records), 48):
            images = np.stack([np.asarray(picture(style, record)) for record in records[start : start + 48]])
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
            parts.append(vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(parts).clone()
