"""What a run says as a whole: how much is flagged, how much of that chance explains, what is rejected over all rows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from ..false_discovery import Numbers, adjusted, rejected
from .results import Words

LEVELS = (0.01, 0.05, 0.1, 0.2)  # false discovery rates that are reported
LEVEL = 0.05  # the one that rows are marked with
INTERVAL = (0.05, 0.95)
UNUSUAL = 0.05


@dataclass(frozen=True)
class Discoveries:
    """What Benjamini-Hochberg rejects at one false discovery rate.

    Attributes:
        level: At most that share of the rejected rows is there by chance, in expectation.
        rows: How many are rejected: likely memorized.
    """

    level: float
    rows: int

    @property
    def by_chance(self) -> float:
        """At most that many of them are expected to be false alarms."""
        return self.level * self.rows


@dataclass(frozen=True)
class FalseAlarms:
    """How many rows the verdict alone would flag if every row were benign.

    Attributes:
        expected: Number of flagged rows on average over calibrations, at most.
        low, high: What 90 % of calibrations of this size would give; None where the calibration is not at hand.
        rows: How many verdicts there are.
    """

    expected: float
    rows: int
    low: float | None = None
    high: float | None = None

    def explain(self, flagged: int) -> bool:
        """Returns whether that many flagged rows are not unusual by chance, even with a rather generous calibration."""
        rate = (self.expected if self.high is None else self.high) / max(1, self.rows)
        return not flagged or (rate > 0 and at_least(flagged, self.rows, rate) > UNUSUAL)


def false_alarms(rows: int, alpha: float, benign: int | None = None) -> FalseAlarms:
    """Returns how many of `rows` benign rows a calibration of `benign` prompts (None: unknown) flags at the rate alpha.

    The rate that a calibration has in fact is Beta(k, n + 1 - k) distributed, k = floor(alpha (n + 1)), for scores
    without ties (Vovk 2012, arXiv 1209.2673).
    """
    if benign is None:
        return FalseAlarms(alpha * rows, rows)
    k = math.floor(alpha * (benign + 1))
    if k == 0:
        return FalseAlarms(0.0, rows, 0.0, 0.0)
    low, high = (beta_quantile(level, k, benign + 1 - k) for level in INTERVAL)
    return FalseAlarms(alpha * rows, rows, low * rows, high * rows)


def beta_quantile(level: float, a: int, b: int) -> float:
    """Returns where the Beta(a, b) distribution function reaches `level`, in [0, 1].

    Raises MissingPackage without scipy.
    """
    return float(require("scipy.special", "audit").betaincinv(a, b, level))


def at_least(count: int, n: int, rate: float) -> float:
    """Returns P(Binomial(n, rate) >= count), in [0, 1], for a rate in (0, 1). Raises MissingPackage without scipy."""
    if not 0 < count <= n:
        return float(count <= 0)
    return float(require("scipy.special", "audit").betainc(count, n - count + 1, rate))


def needed(rows: int, level: float, benign: int) -> int:
    """Returns how many rows must reach the smallest p-value of a calibration of `benign` prompts to be rejected.

    Args:
        rows: Rows with a p-value.
        level: False discovery rate, in (0, 1).
        benign: Number of prompts in the calibration.
    """
    return math.ceil(rows / (level * (benign + 1)) * (1 - 1e-12))


@dataclass(frozen=True)
class Summary:
    """All numbers of a run that are not of one row.

    Attributes:
        rows: Rows with a result.
        verdicts: How many rows have each verdict.
        alpha: False-alarm rate of the verdict; None if uncalibrated.
        alarms: How many of the rows with a p-value are expected to be flagged by chance; None if uncalibrated.
        discoveries: Benjamini-Hochberg over the whole run, at several rates; empty if uncalibrated.
        unlike: Flagged rows that are not near-identical to each other.
    """

    rows: int
    verdicts: dict[str, int]
    alpha: float | None
    alarms: FalseAlarms | None
    discoveries: tuple[Discoveries, ...]
    unlike: int

    @property
    def flagged(self) -> int:
        """Rows that are likely memorized."""
        return self.verdicts.get("memorized", 0)


def summarize(
    verdicts: Words, p_values: Numbers, stands_for: NDArray[np.int64], alpha: float | None, benign: int | None
) -> Summary:
    """Summarizes the rows' verdicts, p-values and clusters.

    Args:
        verdicts: The verdict of each of N rows.
        p_values: (N,); NaN = missing.
        stands_for: (N,) number of the row that represents each; see `clusters.first_alike`.
        alpha: False-alarm rate of the verdict; None if uncalibrated.
        benign: Number of prompts in the calibration; None if that is not at hand.

    Returns:
        The numbers over all rows together.

    Raises:
        MissingPackage: scipy is not installed.
    """
    measured = int(np.count_nonzero(~np.isnan(p_values)))
    unlike = len(np.unique(stands_for[verdicts.where("memorized")]))
    if alpha is None or not measured:
        return Summary(len(p_values), verdicts.counts(), None, None, (), unlike)
    values = adjusted(p_values)
    discoveries = tuple(Discoveries(level, int(rejected(values, level).sum())) for level in LEVELS)
    alarms = false_alarms(measured, alpha, benign)
    return Summary(len(p_values), verdicts.counts(), alpha, alarms, discoveries, unlike)
