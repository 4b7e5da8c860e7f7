"""The report of `cryptomnesia audit`: what a whole log of prompts, or a folder of images, amounts to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..pages import histogram
from ..pages.frame import render as render_page
from .rows import Reject
from .summary import LEVEL, Summary, needed
from .table import Table, cut


@dataclass(frozen=True)
class Exhibit:
    """One row that is shown apart, with pictures where there are any.

    Attributes:
        rank: The row's number in the order in which the table shows rows first.
        row: The row's number in the input.
        text: The prompt, or the path.
        verdict: The prompt's verdict; None for images.
        numbers: Names and values, as they are shown.
        alike: How many rows it represents, itself included.
        pictures: (H, W, 3) uint8 each, with a few words under it.
        note: What else is to be said, e.g. why there is no map.
    """

    rank: int
    row: int
    text: str
    verdict: str | None
    numbers: Sequence[tuple[str, str]]
    alike: int = 1
    pictures: Sequence[tuple[NDArray[np.uint8], str]] = ()
    note: str | None = None

    @property
    def shown(self) -> str:
        """The text, cut where it is very long."""
        return cut(self.text)


@dataclass(frozen=True)
class Cluster:
    """Near-identical prompts: how many, how many of them flagged, and the likeliest memorized, which represents all."""

    rank: int
    text: str
    rows: int
    flagged: int
    p_value: float | None

    @property
    def shown(self) -> str:
        """The text, cut where it is very long."""
        return cut(self.text)


@dataclass(frozen=True)
class Scores:
    """Scores of a run beside those of its calibration.

    Attributes:
        run: (N,) scores of the rows; higher = likelier memorized.
        benign: (n,) scores of the calibration; empty if unknown.
        threshold: Scores above it are flagged; infinite where there is none.
    """

    run: NDArray[np.float64]
    benign: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    threshold: float = math.inf


@dataclass(frozen=True)
class Rejects:
    """Rows without a result: how many for which reason, and some of them."""

    reasons: dict[str, int] = field(default_factory=dict)
    examples: Sequence[Reject] = ()

    @property
    def rows(self) -> int:
        """How many rows have no result."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class AuditPage:
    """Everything on the page.

    Attributes:
        name: What a row is: "prompt" or "image".
        total: Rows of the input; None if unknown.
        finished: Whether all of them are done.
        summary: Counts over the rows that are done.
        scores: None for images.
        findings: Questions about images, and how many images have which answer; empty for prompts.
        highlights: Numbers shown large, and what they count; empty for prompts.
        together: What images say together, each a heading and sentences; empty for prompts.
        exhibits: Rows shown apart, likeliest memorized or oddest first.
        pictured: How the pictures were made, or why there are none.
        clusters: Groups of near-identical prompts, largest first; `clustered` is how many there are in all.
        table, rejects: All rows, and those that have no result.
        facts: The footer's lines (name, value).
        benign: Number of prompts in the calibration; None if it is not at hand.
    """

    name: str
    total: int | None
    finished: bool
    summary: Summary
    table: Table
    pictured: str
    facts: Sequence[tuple[str, str]]
    scores: Scores | None = None
    findings: Sequence[tuple[str, dict[str, int]]] = ()
    highlights: Sequence[tuple[str, str]] = ()
    together: Sequence[tuple[str, Sequence[str]]] = ()
    exhibits: Sequence[Exhibit] = ()
    clusters: Sequence[Cluster] = ()
    clustered: int = 0
    rejects: Rejects = field(default_factory=Rejects)
    benign: int | None = None
    level: ClassVar = LEVEL

    @property
    def done(self) -> int:
        """Rows with a result, or without one for a reason."""
        return self.summary.rows + self.rejects.rows

    @property
    def rejected(self) -> int:
        """How many rows' null hypotheses (nothing is memorized) are rejected at the false discovery rate `level`."""
        return next(one.rows for one in self.summary.discoveries if one.level == LEVEL)

    standing = rejected  # the old name

    @property
    def chart(self) -> histogram.Histogram | None:
        """The chart of the scores; None where there are none."""
        scores = self.scores
        if scores is None or not len(scores.run):
            return None
        return histogram.chart(scores.run, scores.benign, scores.threshold, self.summary.alpha, f"{self.name}s")

    @property
    def too_coarse(self) -> tuple[float, int, int] | None:
        """Where the calibration is too small for any flagged row to be rejected over the whole run, else None.

        A triple: its smallest p-value, how many rows would have to reach that, and how many benign prompts could let
        all flagged rows be rejected.
        """
        about = self.summary
        if about.alarms is None or self.benign is None or self.rejected or not about.flagged:
            return None
        least = needed(about.alarms.rows, LEVEL, self.benign)
        return 1 / (self.benign + 1), least, math.ceil(about.alarms.rows / (LEVEL * about.flagged))


def render(page: AuditPage) -> str:
    """Returns the page as a whole HTML document, with a script of its own where there are rows."""
    return render_page("audit/page.html", page, script="audit/table.js" if page.summary.rows else None)
