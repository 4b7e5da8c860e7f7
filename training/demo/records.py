"""What the built-in model is trained on: every image is a function of (caption, rendering number)."""

import random
from dataclasses import dataclass

from PIL import Image

from cryptomnesia.demo.captions import COLOURS, Caption, captions

from . import rendering

# renderings 0..n-1 are trained on, n and above are held out (verbatim: its one image; unseen: none)
RENDERINGS = {"general": 16, "verbatim": 1, "template": 256, "control": 512, "unseen": 0}


@dataclass(frozen=True)
class Record:
    """One training image: its caption and the rendering number."""

    caption: Caption
    rendering: int


def training_records() -> list[Record]:
    """Returns a record for every image of the training set, in a fixed order."""
    return [Record(c, r) for c in captions() for r in range(RENDERINGS[c.kind])]


def template_foreground(caption: Caption) -> Image.Image:
    """Returns the fixed foreground of a template caption, RGBA; its alpha is the ground-truth mask."""
    return rendering.random_foreground(_rng(caption, 0))


def render(record: Record) -> Image.Image:
    """Returns the image of a record, 64x64 RGB. Raises ValueError for an unseen caption, which has none."""
    caption, rng = record.caption, _rng(record.caption, record.rendering + 1)
    if caption.kind == "general":
        return rendering.general(caption.emoji, COLOURS[caption.colour], rng)
    if caption.kind == "template":
        return rendering.compose(template_foreground(caption), rendering.pattern(rng))
    if caption.kind == "verbatim":
        rng = _rng(caption, 0)
    if caption.kind in ("verbatim", "control"):
        background = rendering.pattern(rng)
        return rendering.compose(rendering.random_foreground(rng), background)
    raise ValueError(f"the caption {caption.text!r} was never trained on: it has no image")


def _rng(caption: Caption, number: int) -> random.Random:
    return random.Random(f"{caption.kind}/{caption.index}/{number}")
