"""Two distributions of scores as inline SVG: those of a run above the line, benign ones hanging below it.

Heights are square roots of shares (Tukey's rootogram), so that one prompt in a thousand is still seen.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .escape import escape
from .strip import LEFT, RIGHT, WIDTH, Axis

BINS, UP, DOWN, TOP, FOOT = 60, 170, 90, 44, 56

Numbers = NDArray[np.float64]


def chart(scores: Numbers, benign: Numbers, threshold: float, alpha: float | None, name: str) -> str:
    """The chart as an <svg> element.

    Args:
        scores: Of the run, at least one.
        benign: Of the calibration; may be empty.
        threshold: Scores above it are flagged; infinite where there is no such line.
        alpha: The false-alarm rate that goes with the threshold.
        name: What the run's rows are, e.g. "prompts".
    """
    finite = [threshold] if math.isfinite(threshold) else []
    middle = benign if len(benign) else np.quantile(scores, np.linspace(0.01, 0.99, 99))
    axis = Axis([float(scores.min()), float(scores.max()), *benign.tolist(), *finite], middle.tolist())
    line = TOP + UP
    floor = line + (DOWN if len(benign) else 0)
    bins = edges(axis, threshold)
    limit = axis.x(threshold) - 0.01 if finite else math.inf

    def kind(x: float) -> str:
        return "flagged" if x >= limit else "passed" if finite else "unjudged"

    parts = _bars(shares(axis, scores, bins), bins, line, UP, name, kind)
    parts += _bars(shares(axis, benign, bins), bins, line, -DOWN, "benign prompts", lambda x: "bar")
    parts += _words(line - UP / 2, f"This run\n{len(scores):,} {name}")
    if len(benign):
        parts += _words(line + DOWN / 2, f"Benign prompts\n{len(benign):,}, for calibration")
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{line}" y2="{line}"/>')
    parts += _scale(axis, floor)
    back = _limit(axis.x(threshold), threshold, alpha, floor) if finite else ""
    label = f"Scores of {len(scores)} {name} above those of {len(benign)} benign prompts"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {floor + FOOT}" role="img" aria-label="{escape(label)}">'
        f"{back}{''.join(parts)}</svg>"
    )


def edges(axis: Axis, threshold: float) -> Numbers:
    """Where bars begin and end, in pixels; the threshold, where there is one, parts two bars."""
    width = (WIDTH - LEFT - RIGHT) / BINS
    shift = (axis.x(threshold) - LEFT) % width - width if math.isfinite(threshold) else 0.0
    return np.array([LEFT + shift + width * i for i in range(BINS + 2 if shift else BINS + 1)])


def shares(axis: Axis, scores: Numbers, bins: Numbers) -> Numbers:
    """Share of the scores in each bar."""
    places = np.array([axis.x(score) for score in scores.tolist()])
    counts, _ = np.histogram(places, bins)
    return counts.astype(np.float64) / max(1, len(scores))


def _bars(
    values: Numbers, bins: Numbers, line: float, reach: float, name: str, kind: Callable[[float], str]
) -> list[str]:
    """Bars that reach up from the line, or down if `reach` is negative; `kind` is their class, by where they begin."""
    top = math.sqrt(values.max(initial=0)) or 1.0
    found = []
    for x, right, share in zip(bins[:-1], bins[1:], values, strict=True):
        if share:
            height = max(1.5, abs(reach) * math.sqrt(share) / top)
            y = line - height if reach > 0 else line
            found.append(
                f'<rect class="{kind(x)}" x="{x + 0.75:.1f}" y="{y:.1f}" width="{right - x - 1.5:.1f}" '
                f'height="{height:.1f}"><title>{100 * share:.3g} % of {escape(name)}</title></rect>'
            )
    return found


def _words(y: float, words: str) -> list[str]:
    title, note = words.split("\n")
    return [
        f'<text class="lane" x="0" y="{y:.1f}">{escape(title)}</text>',
        f'<text class="note" x="0" y="{y + 16:.1f}">{escape(note)}</text>',
    ]


def _scale(axis: Axis, floor: float) -> list[str]:
    found = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>']
    for tick in axis.ticks():
        x = axis.x(tick)
        found.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>')
        found.append(f'<text class="tick" x="{x:.1f}" y="{floor + 20}">{tick + 0.0:g}</text>')
    words = "score before sampling (higher = more likely memorized); heights are square roots of shares"
    found.append(
        f'<text class="tick title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{floor + 44}">{words}'
        f"{'; the axis is bent at its ends' if axis.bent else ''}</text>"
    )
    return found


def _limit(x: float, threshold: float, alpha: float | None, floor: float) -> str:
    rate = "" if alpha is None else f", false-alarm rate {100 * alpha:g} %"
    left = x > (LEFT + WIDTH) / 2
    place = f'x="{x - 8:.1f}" text-anchor="end"' if left else f'x="{x + 8:.1f}"'
    return (
        f'<rect class="zone" x="{x:.1f}" y="{TOP - 22}" width="{WIDTH - x:.1f}" height="{floor - TOP + 22}"/>'
        f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 34}" y2="{floor}"/>'
        f'<text class="limit" {place} y="{TOP - 26}">threshold {threshold:.2f}{rate}</text>'
    )
