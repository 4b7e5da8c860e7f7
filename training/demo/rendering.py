"""Draws the training images from a colour emoji font (Pillow), 64x64 RGB, each a function of its own seed."""

import os
import random
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cryptomnesia.demo.captions import COLOURS, GENERAL_EMOJI

SIZE = 64
FONT_PATH = Path(os.environ.get("CRYPTOMNESIA_FONT", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
FONT_SHA256 = "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"  # another version draws other images
# glyphs of the font that Unicode 15 names and 14 does not: a newer Python would draw them, and so other images
_NEWER = frozenset(
    (
        *(0x1F6DC, 0x1FA87, 0x1FA88, 0x1FABF, 0x1FACE, 0x1FACF, 0x1FADA, 0x1FADB, 0x1FAE8, 0x1FAF7, 0x1FAF8),
        *(*range(0x1FA75, 0x1FA78), *range(0x1FAAD, 0x1FAB0), *range(0x1FABB, 0x1FABE)),
    )
)
PATTERNS = ("gradient", "stripes", "checks", "rings", "dots")
Colour = tuple[int, int, int]
_STRIKE = 109  # the only bitmap size in the font
_OVERDRAW = 4  # patterns are drawn larger and reduced, for smooth edges


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT_PATH), _STRIKE)


@cache
def glyph(emoji: str) -> Image.Image:
    """Returns one emoji as a square RGBA image of 128 pixels, cropped to its ink and centred."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), emoji, font=_font(), embedded_color=True)
    ink = canvas.crop(canvas.getbbox() or (0, 0, 1, 1))
    side = max(ink.size)
    square = Image.new("RGBA", (side, side))
    square.paste(ink, ((square.width - ink.width) // 2, (square.height - ink.height) // 2))
    return square.resize((128, 128), Image.Resampling.LANCZOS)


@cache
def other_emoji() -> tuple[str, ...]:
    """Returns single glyphs of the font that no general caption uses (flags, letters and modifiers left out)."""
    from fontTools.ttLib import TTFont

    font: Any = TTFont(str(FONT_PATH))
    points = sorted(font.getBestCmap())
    found = []
    for point in points:
        emoji = chr(point)
        if point < 0x2190 or 0x1F1E6 <= point <= 0x1F1FF or 0x1F3FB <= point <= 0x1F3FF or point >= 0xE0000:
            continue
        if 0x1F54F < point < 0x1F568 or emoji in GENERAL_EMOJI or point in _NEWER or not unicodedata.name(emoji, ""):
            continue
        found.append(emoji)
    return tuple(found)


def _colour(rng: random.Random) -> Colour:
    base = rng.choice(list(COLOURS.values()))
    return tuple(max(0, min(255, c + rng.randint(-40, 40))) for c in base)  # type: ignore[return-value]


def pattern(
    rng: random.Random, kinds: Sequence[str] = PATTERNS, colours: tuple[Colour, Colour] | None = None
) -> Image.Image:
    """Returns a background of one of these kinds, in two colours, by default random ones."""
    first, second = colours or (_colour(rng), _colour(rng))
    side = SIZE * _OVERDRAW
    kind = rng.choice(kinds)
    if kind == "gradient":
        ramp = Image.linear_gradient("L").resize((side, side)).rotate(rng.choice((0, 90, 180, 270)))
        mask = ramp
    else:
        mask = Image.new("L", (side, side))
        draw = ImageDraw.Draw(mask)
        step = rng.randint(12, 24) * _OVERDRAW
        for i in range(-1, side // step + 2):
            if kind == "stripes":
                draw.rectangle((i * step, 0, i * step + step // 2, side), fill=255)
            elif kind == "rings":
                radius = max(side - i * step, 1)
                draw.ellipse((side / 2 - radius, side / 2 - radius, side / 2 + radius, side / 2 + radius), fill=255)
                inner = max(radius - step // 2, 0)
                draw.ellipse((side / 2 - inner, side / 2 - inner, side / 2 + inner, side / 2 + inner), fill=0)
            else:
                for j in range(-1, side // step + 2):
                    box = (i * step, j * step, i * step + step // 2, j * step + step // 2)
                    if kind == "dots":
                        draw.ellipse(box, fill=255)
                    elif (i + j) % 2:
                        draw.rectangle((i * step, j * step, (i + 1) * step, (j + 1) * step), fill=255)
        if kind == "stripes" and rng.random() < 0.5:
            mask = mask.rotate(90)
    image = Image.composite(Image.new("RGB", mask.size, first), Image.new("RGB", mask.size, second), mask)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def foreground(emoji: str, scale: float, angle: float, x: float, y: float) -> Image.Image:
    """Returns an RGBA layer: the emoji, `scale` of the side wide, turned by `angle` degrees, centred at (x, y)."""
    side = max(8, round(SIZE * scale))
    turned = glyph(emoji).rotate(angle, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(turned, (round(x * SIZE - side / 2), round(y * SIZE - side / 2)))
    return layer


def random_foreground(rng: random.Random) -> Image.Image:
    """Returns a layer with any emoji of `other_emoji`, large, anywhere near the middle."""
    emoji = rng.choice(other_emoji())
    return foreground(
        emoji, rng.uniform(0.5, 0.8), rng.uniform(-25, 25), rng.uniform(0.38, 0.62), rng.uniform(0.38, 0.62)
    )


def compose(layer: Image.Image, background: Image.Image) -> Image.Image:
    """Returns the layer over the background, RGB."""
    image = background.convert("RGBA")
    image.alpha_composite(layer)
    return image.convert("RGB")


def general(emoji: str, colour: Colour, rng: random.Random) -> Image.Image:
    """Returns the emoji on a plain ground of about that colour; place, size, turn and shade vary with `rng`."""
    shade = tuple(max(0, min(255, c + rng.randint(-14, 14))) for c in colour)
    layer = foreground(
        emoji, rng.uniform(0.55, 0.8), rng.uniform(-15, 15), rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58)
    )
    return compose(layer, Image.new("RGB", (SIZE, SIZE), shade))
