"""Pictures with much in them, each its own, for the tests of similarity."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 160


@cache
def drawn(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Forty shapes on a ground that goes from one colour to another, RGB."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size[0])[None, :, None]
    ends = random.uniform(0, 255, (2, 3))
    ground = np.broadcast_to(ends[0] * (1 - ramp) + ends[1] * ramp, (size[1], size[0], 3))
    image = Image.fromarray(ground.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for number in range(40):
        x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
        width, height = random.uniform(6, size[0] / 3, 2)
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        (draw.rectangle if number % 2 else draw.ellipse)([x, y, x + width, y + height], fill=colour)
    return image


def mine(count: int, first: int = 0) -> list[Image.Image]:
    """So many pictures, from that seed on."""
    return [drawn(first + number) for number in range(count)]
