"""The score chart of a few prompts: benign scores as a histogram, the checked prompts above it in lanes.

Laid out here, and drawn by charts.html.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .axis import Axis, Bar

TOP, RADIUS, STEP, PADDING = 46, 11, 25, 12
BARS, BAR_HEIGHT = 44, 120


@dataclass(frozen=True)
class Marker:
    """One checked prompt: the number it has on the page, its score, its text, whether it was flagged."""

    number: int
    score: float
    text: str
    flagged: bool


@dataclass(frozen=True)
class Lane:
    """Markers of one kind, with the name of the kind in one or two lines."""

    name: str
    markers: Sequence[Marker]


@dataclass(frozen=True)
class Placed:
    """A lane on the chart: the heights of its foot and of each line of its name, and the centre of each marker."""

    bottom: float
    names: Sequence[tuple[str, float]]
    markers: Sequence[tuple[Marker, float, float]]


@dataclass(frozen=True)
class Strip:
    """The chart, in pixels from the top left.

    Attributes:
        benign: Number of benign scores.
        floor: Height of the axis, on which the bars stand.
        threshold: Where the verdict changes; may be infinite; then no line is drawn.
        alpha: The false-alarm rate that goes with it.
    """

    axis: Axis
    lanes: Sequence[Placed]
    bars: Sequence[Bar]
    benign: int
    floor: float
    threshold: float
    alpha: float
    top: int = TOP
    radius: int = RADIUS

    @property
    def middle(self) -> float:
        """Height of the bars' middle."""
        return self.floor - BAR_HEIGHT / 2

    @property
    def bounded(self) -> bool:
        """Whether there is a threshold to draw."""
        return math.isfinite(self.threshold)

    @property
    def prompts(self) -> int:
        """Number of prompts that are marked."""
        return sum(len(lane.markers) for lane in self.lanes)


def chart(benign: Sequence[float], lanes: Sequence[Lane], threshold: float, alpha: float) -> Strip:
    """Lays out the chart of these scores.

    Args:
        benign: Benign scores, at least one.
        lanes: The checked prompts, a lane per kind.
        threshold: Scores above it are flagged; may be infinite.
        alpha: The false-alarm rate that goes with it.

    Returns:
        The chart, in pixels.
    """
    scores = [marker.score for lane in lanes for marker in lane.markers]
    line = [threshold] if math.isfinite(threshold) else []
    axis = Axis([*benign, *scores, *line], benign)
    placed: list[Placed] = []
    bottom = float(TOP)
    for lane in lanes:
        placed.append(_placed(lane, axis, bottom))
        bottom = placed[-1].bottom
    floor = bottom + BAR_HEIGHT + 18
    return Strip(axis, placed, _bars(benign, axis, floor), len(benign), floor, threshold, alpha)


def levels(positions: Sequence[float]) -> list[int]:
    """Returns for each position (in pixels, ascending) the lowest level at which its disc touches no earlier one."""
    ends: list[float] = []
    result = []
    for position in positions:
        level = next((i for i, end in enumerate(ends) if position - end >= STEP), len(ends))
        ends[level : level + 1] = [position]
        result.append(level)
    return result


def _placed(lane: Lane, axis: Axis, top: float) -> Placed:
    ordered = sorted(lane.markers, key=lambda marker: marker.score)
    positions = [axis.x(marker.score) for marker in ordered]
    stacked = levels(positions)
    height = (max(stacked, default=0) + 1) * STEP + PADDING
    bottom = top + height
    lines = lane.name.split("\n")
    return Placed(
        bottom,
        [(line, top + height / 2 + 4 + (i - (len(lines) - 1) / 2) * 16) for i, line in enumerate(lines)],
        [
            (marker, x, bottom - PADDING / 2 - STEP / 2 - level * STEP)
            for marker, x, level in zip(ordered, positions, stacked, strict=True)
        ],
    )


def _bars(benign: Sequence[float], axis: Axis, floor: float) -> list[Bar]:
    width = (axis.right - axis.left) / BARS
    counts = [0] * BARS
    for score in benign:
        counts[min(BARS - 1, max(0, int((axis.x(score) - axis.left) / width)))] += 1
    heights = [max(2.0, BAR_HEIGHT * count / max(counts)) for count in counts]
    return [
        Bar(axis.left + i * width + 0.75, floor - height, width - 1.5, height, count)
        for i, (count, height) in enumerate(zip(counts, heights, strict=True))
        if count
    ]
