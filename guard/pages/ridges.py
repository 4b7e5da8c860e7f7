"""Distributions of the scores of several groups, one above the other, with benign ones at the bottom.

Heights are square roots of shares, as in `histogram`. Laid out here, and drawn by charts.html.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .axis import Axis, Bar
from .histogram import Numbers, edges, shares

TOP, LANE, FREE = 48, 58, 10  # heights of the head, of a lane, and of what is left free in one
LONGEST = 24  # letters of a name


@dataclass(frozen=True)
class Scored:
    """A group's name, what is to be said of it in a few words, and its scores (N,), at least one."""

    name: str
    note: str
    scores: Numbers


@dataclass(frozen=True)
class Ridge:
    """One lane: the height of its floor, its words, and its bars."""

    floor: int
    name: str
    note: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Ridges:
    """The chart, in pixels from the top left.

    Attributes:
        floor: Where the axis lies.
        threshold: Scores above it are flagged; infinite where there is no such line.
        alpha: The false-alarm rate that goes with it.
    """

    axis: Axis
    lanes: Sequence[Ridge]
    floor: int
    threshold: float
    alpha: float
    top: int = TOP

    @property
    def bounded(self) -> bool:
        """Whether there is a threshold to draw."""
        return math.isfinite(self.threshold)


def chart(groups: Sequence[Scored], benign: Scored, threshold: float, alpha: float) -> Ridges:
    """Lays out the chart of these scores; higher = more likely memorized.

    Args:
        groups: The groups, from the top.
        benign: The calibration's scores.
        threshold: Scores above it are flagged; may be infinite.
        alpha: The false-alarm rate that goes with it.
    """
    bounded, everyone = math.isfinite(threshold), np.concatenate([group.scores for group in (*groups, benign)])
    line = [threshold] if bounded else []
    axis = Axis([float(everyone.min()), float(everyone.max()), *line], benign.scores.tolist())
    bins = edges(axis, threshold)
    limit = axis.x(threshold) - 0.01 if bounded else math.inf

    def look(x: float) -> str:
        return "flagged" if x >= limit else "passed" if bounded else "unjudged"

    lanes = [
        _ridge(group, axis, bins, TOP + LANE * (number + 1), look if group is not benign else lambda x: "bar")
        for number, group in enumerate((*groups, benign))
    ]
    return Ridges(axis, lanes, TOP + LANE * len(lanes), threshold, alpha)


def _ridge(group: Scored, axis: Axis, bins: Numbers, floor: int, look: Callable[[float], str]) -> Ridge:
    values = shares(axis, group.scores, bins)
    tallest, bars = math.sqrt(values.max(initial=0)) or 1.0, []
    for x, right, share in zip(bins[:-1].tolist(), bins[1:].tolist(), values.tolist(), strict=True):
        if share:
            height = max(1.5, (LANE - FREE) * math.sqrt(share) / tallest)
            bars.append(Bar(x + 0.75, floor - height, right - x - 1.5, height, share, look(x)))
    name = group.name if len(group.name) <= LONGEST else f"{group.name[: LONGEST - 1]}…"
    return Ridge(floor, name, group.note, bars)
