"""The axis of the score charts: where on a page a score lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT = 960, 176, 24  # pixels of the chart, and of its margins
LEAST, MOST = 1e-12, 1e100  # differences of scores, next to 1 or to the scores, and scores that can be drawn
FAR = 8  # scores this many times farther out than benign ones bend the axis


class Axis:
    """Places scores on the page: evenly, or bent (asinh) where a few lie far out.

    Scores that differ by less than anybody could read are drawn as equal, in the middle; those beyond MOST, at its end.
    """

    left, right, width = LEFT, WIDTH - RIGHT, WIDTH

    def __init__(self, values: Sequence[float], benign: Sequence[float]):
        values, benign = [_clipped(v) for v in values], sorted(map(_clipped, benign))
        self.middle = benign[len(benign) // 2]
        self.reach = max(abs(v - self.middle) for v in values)
        self.scale = None
        if self.reach <= LEAST * max(1.0, abs(self.middle)):
            self.reach = max(1.0, abs(self.middle))
            self.low, self.high = self.middle - self.reach, self.middle + self.reach
            return
        # never so narrow that the rest would be infinitely far out
        spread = max((benign[-1] - benign[0]) / 2, 1e-6 * self.reach)
        if self.reach > FAR * spread:
            self.scale = spread / 2
        low, high = self._bend(min(values)), self._bend(max(values))
        margin = 0.04 * (high - low)
        self.low, self.high = low - margin, high + margin

    @property
    def bent(self) -> bool:
        """Whether distances shrink towards the ends."""
        return self.scale is not None

    def _bend(self, score: float) -> float:
        return math.asinh((score - self.middle) / self.scale) if self.scale else score

    def x(self, score: float) -> float:
        """Returns where a score lies, in pixels from the left."""
        return LEFT + (self._bend(_clipped(score)) - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """Returns round scores in ascending order, at least 60 pixels apart."""
        span = self.reach if self.scale else self.high - self.low
        powers = range(math.floor(math.log10(span)) - 3, math.ceil(math.log10(span)) + 1)
        if self.scale:
            sizes = [digit * 10.0**power for power in reversed(powers) for digit in (5, 2, 1)]
            wanted = [0.0, *(sign * size for size in sizes for sign in (1, -1))]
        else:
            step = next(d * 10.0**p for p in powers for d in (1, 2, 5) if d * 10.0**p >= span / 10)
            wanted = [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        kept: list[float] = []
        for tick in wanted:
            if LEFT <= self.x(tick) <= WIDTH - RIGHT and all(abs(self.x(tick) - self.x(k)) >= 60 for k in kept):
                kept.append(tick)
        return sorted(tick + 0.0 for tick in kept)  # never -0


def _clipped(score: float) -> float:
    return max(-MOST, min(MOST, score))


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in pixels, and the class that colours it.

    Attributes:
        x, y: The top left corner.
        width, height: The size.
        share: The count of prompts, or the share of them, that the bar shows.
        look: The class that colours it.
    """

    x: float
    y: float
    width: float
    height: float
    share: float
    look: str = "bar"
