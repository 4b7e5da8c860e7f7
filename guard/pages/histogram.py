"""Two distributions of scores: those of a run above the line, benign ones hanging below it.

Heights are square roots of shares (Tukey's rootogram), so that one prompt in a thousand is still seen. Laid out here,
and drawn by charts.html.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .axis import Axis, Bar

BINS, UP, DOWN, TOP = 60, 170, 90, 44
LINE = TOP + UP

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """The chart, in pixels from the top left.

    Attributes:
        name: What the run's rows are, e.g. "prompts".
        rows, benign: How many scores the run, and the calibration, has.
        bars: Bars of the run, above the line; `hanging` are those of the calibration, below it.
        floor: Where the axis lies.
        threshold: Scores above it are flagged; infinite where there is no such line.
        alpha: The false-alarm rate that goes with it; None if unknown.
    """

    axis: Axis
    name: str
    rows: int
    benign: int
    bars: Sequence[Bar]
    hanging: Sequence[Bar]
    floor: int
    threshold: float
    alpha: float | None
    top: int = TOP
    line: int = LINE
    above: float = LINE - UP / 2
    below: float = LINE + DOWN / 2

    @property
    def bounded(self) -> bool:
        """Whether there is a threshold to draw."""
        return math.isfinite(self.threshold)


def chart(scores: Numbers, benign: Numbers, threshold: float, alpha: float | None, name: str) -> Histogram:
    """Lays out the chart of these scores.

    Args:
        scores: (N,) scores of the run, at least one; higher = likelier memorized.
        benign: (n,) scores of the calibration; may be empty.
        threshold: Scores above it are flagged; infinite where there is no threshold.
        alpha: The false-alarm rate that goes with it; None if unknown.
        name: What the run's rows are, e.g. "prompts".

    Returns:
        The chart, in pixels.
    """
    finite = [threshold] if math.isfinite(threshold) else []
    middle = benign if len(benign) else np.quantile(scores, np.linspace(0.01, 0.99, 99))
    axis = Axis([float(scores.min()), float(scores.max()), *benign.tolist(), *finite], middle.tolist())
    bins = edges(axis, threshold)
    limit = axis.x(threshold) - 0.01 if finite else math.inf

    def look(x: float) -> str:
        return "flagged" if x >= limit else "passed" if finite else "unjudged"

    return Histogram(
        axis=axis,
        name=name,
        rows=len(scores),
        benign=len(benign),
        bars=_bars(shares(axis, scores, bins), bins, UP, look),
        hanging=_bars(shares(axis, benign, bins), bins, -DOWN, lambda x: "bar"),
        floor=LINE + (DOWN if len(benign) else 0),
        threshold=threshold,
        alpha=alpha,
    )


def edges(axis: Axis, threshold: float) -> Numbers:
    """Returns where bars begin and end, in pixels; the threshold, where there is one, lies between two bars."""
    width = (axis.right - axis.left) / BINS
    shift = (axis.x(threshold) - axis.left) % width - width if math.isfinite(threshold) else 0.0
    return np.array([axis.left + shift + width * i for i in range(BINS + 2 if shift else BINS + 1)])


def shares(axis: Axis, scores: Numbers, bins: Numbers) -> Numbers:
    """Returns the share of the scores in each bar, in [0, 1]; `bins` are the bars' edges in pixels."""
    positions = np.array([axis.x(score) for score in scores.tolist()])
    counts, _ = np.histogram(positions, bins)
    return counts.astype(np.float64) / max(1, len(scores))


def _bars(values: Numbers, bins: Numbers, reach: int, look: Callable[[float], str]) -> list[Bar]:
    """Bars that reach up from the line, or down if `reach` is negative; `look` is their class, by where they begin."""
    top = math.sqrt(values.max(initial=0)) or 1.0
    bars = []
    for x, right, share in zip(bins[:-1], bins[1:], values, strict=True):
        if share:
            height = max(1.5, abs(reach) * math.sqrt(share) / top)
            y = LINE - height if reach > 0 else float(LINE)
            bars.append(Bar(x + 0.75, y, right - x - 1.5, height, share, look(x)))
    return bars
