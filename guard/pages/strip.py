"""The score chart as inline SVG: benign scores as a histogram, the checked prompts above it in lanes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .escape import escape

WIDTH, LEFT, RIGHT, TOP = 960, 176, 24, 46
RADIUS, STEP, PADDING = 11, 25, 12
BARS, BAR_HEIGHT, FOOT = 44, 120, 56
LEAST, MOST = 1e-12, 1e100  # differences of scores, next to 1 or to the scores, and scores that can be drawn
FAR = 8  # scores this many times farther out than benign ones bend the axis


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


class Axis:
    """Places scores on the page: evenly, or bent (asinh) where a few lie far out.

    Scores that differ by less than anybody could read are drawn as equal, in the middle; those beyond MOST, at its end.
    """

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
        """Where a score lies, in pixels."""
        return LEFT + (self._bend(_clipped(score)) - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """Round scores, at least 60 pixels apart."""
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
        return sorted(kept)


def _clipped(score: float) -> float:
    return max(-MOST, min(MOST, score))


def chart(benign: Sequence[float], lanes: Sequence[Lane], threshold: float, alpha: float) -> str:
    """The chart as an <svg> element. `threshold` may be infinite; then no line is drawn."""
    scores = [marker.score for lane in lanes for marker in lane.markers]
    line = [threshold] if math.isfinite(threshold) else []
    axis = Axis([*benign, *scores, *line], benign)
    parts: list[str] = []
    y = float(TOP)
    for lane in lanes:
        height = _lane(parts, lane, axis, y)
        y += height
    floor = y + BAR_HEIGHT + 18
    _histogram(parts, benign, axis, floor)
    _scale(parts, axis, floor)
    back = _threshold(axis, threshold, alpha, floor) if line else ""
    label = f"Scores of {len(scores)} prompts above a histogram of {len(benign)} benign scores"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {floor + FOOT:.0f}" role="img" aria-label="{escape(label)}">'
        f"{back}{''.join(parts)}</svg>"
    )


def levels(places: Sequence[float]) -> list[int]:
    """For each place (ascending), the lowest level at which its disc touches no earlier one."""
    ends: list[float] = []
    result = []
    for place in places:
        level = next((i for i, end in enumerate(ends) if place - end >= STEP), len(ends))
        ends[level : level + 1] = [place]
        result.append(level)
    return result


def _lane(parts: list[str], lane: Lane, axis: Axis, top: float) -> float:
    """Adds a lane; returns its height."""
    ordered = sorted(lane.markers, key=lambda marker: marker.score)
    places = [axis.x(marker.score) for marker in ordered]
    stacked = levels(places)
    height = (max(stacked, default=0) + 1) * STEP + PADDING
    bottom = top + height
    parts.append(f'<line class="rule" x1="0" x2="{WIDTH}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    names = lane.name.split("\n")
    for i, name in enumerate(names):
        y = top + height / 2 + 4 + (i - (len(names) - 1) / 2) * 16
        parts.append(f'<text class="{"lane" if i == 0 else "note"}" x="0" y="{y:.1f}">{escape(name)}</text>')
    for marker, x, level in zip(ordered, places, stacked, strict=True):
        y = bottom - PADDING / 2 - STEP / 2 - level * STEP
        kind = "flagged" if marker.flagged else "passed"
        verdict = "likely memorized" if marker.flagged else "clear"
        # flagged prompts are squares, so that colour is not all that tells
        shape = (
            f'<rect x="{x - RADIUS:.1f}" y="{y - RADIUS:.1f}" width="{2 * RADIUS}" height="{2 * RADIUS}" rx="4"/>'
            if marker.flagged
            else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        )
        parts.append(
            f'<a href="#prompt-{marker.number}"><g class="marker {kind}">'
            f"<title>{marker.number}. {escape(marker.text)}: {marker.score:.2f}, {verdict}</title>"
            f'{shape}<text x="{x:.1f}" y="{y + 4:.1f}">{marker.number}</text></g></a>'
        )
    return height


def _histogram(parts: list[str], benign: Sequence[float], axis: Axis, floor: float) -> None:
    width = (WIDTH - LEFT - RIGHT) / BARS
    counts = [0] * BARS
    for score in benign:
        counts[min(BARS - 1, max(0, int((axis.x(score) - LEFT) / width)))] += 1
    for i, count in enumerate(counts):
        if count:
            height = max(2.0, BAR_HEIGHT * count / max(counts))
            parts.append(
                f'<rect class="bar" x="{LEFT + i * width + 0.75:.1f}" y="{floor - height:.1f}" '
                f'width="{width - 1.5:.1f}" height="{height:.1f}" rx="1.5"><title>{count} benign prompts</title></rect>'
            )
    middle = floor - BAR_HEIGHT / 2
    parts.append(f'<text class="lane" x="0" y="{middle:.1f}">Benign prompts</text>')
    parts.append(f'<text class="note" x="0" y="{middle + 16:.1f}">{len(benign)}, for calibration</text>')


def _scale(parts: list[str], axis: Axis, floor: float) -> None:
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor:.1f}" y2="{floor:.1f}"/>')
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor:.1f}" y2="{floor + 5:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 20:.1f}">{tick:g}</text>'.replace("-0<", "0<"))
    words = "score before sampling (higher = more likely memorized)" + (
        "; the axis is bent at its ends" if axis.bent else ""
    )
    parts.append(f'<text class="tick title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{floor + 44:.1f}">{words}</text>')


def _threshold(axis: Axis, threshold: float, alpha: float, floor: float) -> str:
    x = axis.x(threshold)
    words = f"threshold {threshold:.2f}, false-alarm rate {100 * alpha:g} %"
    # the words stand on the side that has room
    left = x > (LEFT + WIDTH) / 2
    place = f'x="{x - 8:.1f}" text-anchor="end"' if left else f'x="{x + 8:.1f}"'
    return (
        f'<rect class="zone" x="{x:.1f}" y="{TOP - 22}" width="{WIDTH - x:.1f}" height="{floor - TOP + 22:.1f}"/>'
        f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 34}" y2="{floor:.1f}"/>'
        f'<text class="limit" {place} y="{TOP - 26}">{words}</text>'
    )
