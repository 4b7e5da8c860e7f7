"""What a run says as a whole: how much is flagged, how much of that chance explains, what stands over all rows."""

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
    """What Benjamini-Hochberg leaves at one false discovery rate.

    Attributes:
        level: At most that share of the rows that stand is there by chance, in expectation.
        rows: How many stand.
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
        expected: On average over calibrations, at most.
        low, high: What 90 % of calibrations of this size would give; None where the calibration is not at hand.
        rows: Of how many verdicts.
    """

    expected: float
    rows: int
    low: float | None = None
    high: float | None = None

    def explain(self, flagged: int) -> bool:
        """Whether that many flagged rows are nothing unusual by chance, even with a rather generous calibration."""
        rate = (self.expected if self.high is None else self.high) / max(1, self.rows)
        return not flagged or (rate > 0 and at_least(flagged, self.rows, rate) > UNUSUAL)


def false_alarms(rows: int, alpha: float, benign: int | None = None) -> FalseAlarms:
    """Of `rows` verdicts at the false-alarm rate alpha, by a calibration of `benign` prompts (None: unknown).

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
    """Where the Beta(a, b) distribution function reaches `level`, in [0, 1]. Raises MissingPackage without scipy."""
    return float(require("scipy.special", "audit").betaincinv(a, b, level))


def at_least(count: int, n: int, rate: float) -> float:
    """P(Binomial(n, rate) >= count), in [0, 1]; rate in (0, 1). Raises MissingPackage without scipy."""
    if not 0 < count <= n:
        return float(count <= 0)
    return float(require("scipy.special", "audit").betainc(count, n - count + 1, rate))


def needed(rows: int, level: float, benign: int) -> int:
    """How many rows must reach the smallest p-value that a calibration of `benign` prompts has for any to stand."""
    return math.ceil(rows / (level * (benign + 1)) * (1 - 1e-12))


@dataclass(frozen=True)
class Summary:
    """All numbers of a run that are not of one row.

    Attributes:
        rows: Rows with a result.
        verdicts: How many rows have each verdict.
        alpha: False-alarm rate of the verdict; None if uncalibrated.
        alarms: Of the rows with a p-value, how many are expected to be flagged by chance; None if uncalibrated.
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
    """From the rows' verdicts, p-values (NaN = missing) and clusters (see clusters.first_alike).

    Args:
        verdicts, p_values, stands_for: One each per row.
        alpha: False-alarm rate of the verdict; None if uncalibrated.
        benign: Number of prompts in the calibration; None if that is not at hand.
    """
    there = int(np.count_nonzero(~np.isnan(p_values)))
    unlike = len(np.unique(stands_for[verdicts.where("memorized")]))
    if alpha is None or not there:
        return Summary(len(p_values), verdicts.counts(), None, None, (), unlike)
    values = adjusted(p_values)
    discoveries = tuple(Discoveries(level, int(rejected(values, level).sum())) for level in LEVELS)
    alarms = false_alarms(there, alpha, benign)
    return Summary(len(p_values), verdicts.counts(), alpha, alarms, discoveries, unlike)
