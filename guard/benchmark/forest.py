"""The chart of rates with their intervals, every method next to the others, in pixels from the top left.

Laid out here, and drawn by page.html.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .evaluation import Group, Pair
from .methods import METHODS, Method
from .rates import Estimate

ROW, HEAD, GAP, TOP = 23, 30, 10, 24  # heights of a method, of a list's name, between two lists, of the head
AREA, RATE, WIDTH = (150, 360), (560, 750), 960  # where both rates lie from 0 to 1
LONGEST = 70  # letters of a list's name


@dataclass(frozen=True)
class Whisker:
    """One rate: where its dot and the ends of its interval lie, and what it says in digits."""

    x: float
    left: float
    right: float
    text: str


@dataclass(frozen=True)
class MethodRow:
    """One method's rates, and whether it is our own."""

    y: float
    method: Method
    own: bool
    area: Whisker
    rate: Whisker


@dataclass(frozen=True)
class Against:
    """One list of negatives: where its name stands, and a row per method."""

    y: float
    name: str
    rows: Sequence[MethodRow]


@dataclass(frozen=True)
class Forest:
    """How well one group of memorized prompts is told from each list, by each method."""

    name: str
    prompts: int
    lists: Sequence[Against]
    height: float
    top: int = TOP
    area: tuple[int, int] = AREA
    rate: tuple[int, int] = RATE
    width: int = WIDTH


def forest(positive: Group, pairs: Sequence[Pair], sizes: Mapping[str, int]) -> Forest:
    """Lays out the rates of one group of positives; `sizes` are the numbers of prompts of the lists."""
    y, lists = float(TOP), []
    for pair in pairs:
        name_at, y = y + HEAD - 8, y + HEAD
        rows = []
        for method in METHODS:
            rates = pair.methods[method.key]
            area, rate = _whisker(rates.auc, AREA, 3), _whisker(rates.tpr, RATE, 2)
            rows.append(MethodRow(y + ROW / 2, method, method.key == "default", area, rate))
            y += ROW
        name = pair.negatives if len(pair.negatives) <= LONGEST else f"{pair.negatives[: LONGEST - 1]}…"
        lists.append(Against(name_at, f"next to {name}, {sizes[pair.negatives]:,} prompts", rows))
        y += GAP
    return Forest(positive.name, positive.prompts, lists, y)


def _whisker(estimate: Estimate, ends: tuple[int, int], digits: int) -> Whisker:
    start, width = ends[0], ends[1] - ends[0]
    x, left, right = (start + width * value for value in (estimate.value, estimate.low, estimate.high))
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return Whisker(x, left, right, f"{value} ({low} to {high})")
