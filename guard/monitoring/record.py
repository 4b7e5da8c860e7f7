"""What a monitor finds at one moment of a training, and what of it is more than chance."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from ..printable import printable
from ..two_samples import edge

CONFIDENCE = 0.95


@dataclass(frozen=True)
class CaptionScore:
    """A caption that was trained on.

    Attributes:
        caption: Its text.
        score: How strongly guidance pulls, as in a calibration; higher = more likely memorized.
        p_value: The share of benign captions that score as high, in (0, 1]; small = unlike benign ones.
    """

    caption: str
    score: float
    p_value: float


@dataclass(frozen=True)
class EpochRecord:
    """What a monitor found when it was called.

    Attributes:
        epoch: What it was told: a number of epochs or steps.
        captions: How many captions were measured.
        flagged: How many of them score so high as at most a share `alpha` of benign captions do.
        flags: Which these are: their numbers in the monitor's `captions`, from 0.
        share: `flagged` of `captions`; None where nothing could be measured, and `reason` says why.
        interval: The exact 95 % interval of the share (Clopper and Pearson), for captions of the same kind.
        already: How many were flagged at the first call, before which the training of this run had done nothing.
        newly: How many are flagged that were not at the first call.
        p_value: How likely benign captions in place of the trained ones would give as many new ones; exact.
        level: What `p_value` is compared with: less from call to call, so that a whole training raises a false alarm
            at most as often as `significance` says.
        took_off: Whether more captions are flagged than chance explains.
        worst: The captions with the highest scores, highest first.
        forward_rows: Rows of the network that it took; an image of 50 steps with guidance takes 100.
        seconds: How long it took.
        reason: Why nothing could be measured, e.g. NaN.
    """

    epoch: float
    captions: int
    flagged: int
    flags: tuple[int, ...]
    share: float | None
    interval: tuple[float, float] | None
    already: int
    newly: int
    p_value: float
    level: float
    took_off: bool
    worst: tuple[CaptionScore, ...]
    forward_rows: int
    seconds: float
    reason: str | None = None

    def __str__(self) -> str:
        if self.share is None:
            return f"epoch {self.epoch:g}: nothing measured: {self.reason}"
        low, high = self.interval or (0.0, 1.0)
        words = f"epoch {self.epoch:g}: {self.flagged} of {self.captions} captions flagged ({low:.0%} to {high:.0%})"
        return words + (": they are being memorized" if self.took_off else "")

    def to_dict(self, *, with_captions: bool = False) -> dict[str, Any]:
        """Returns the record as plain values for JSON; captions by their digests unless they are asked for."""
        worst = [
            {("caption" if with_captions else "sha256"): c.caption if with_captions else digest(c.caption)}
            | {"score": c.score, "p_value": c.p_value}
            for c in self.worst
        ]
        interval = None if self.interval is None else list(self.interval)
        return {**vars(self), "flags": list(self.flags), "interval": interval, "worst": worst}


def digest(caption: str) -> str:
    """Returns the first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(caption.encode()).hexdigest()[:16]


def share_interval(hits: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the exact interval of a share (Clopper and Pearson 1934): what hits are not too rare or too many for."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else edge(lambda p: at_least(hits, of, p) > tail, hits / of, 0.0)
    high = 1.0 if hits == of else edge(lambda p: 1 - at_least(hits + 1, of, p) > tail, hits / of, 1.0)
    return low, high


def at_least(hits: int, of: int, p: float) -> float:
    """Returns the probability of that many hits or more in independent trials with probability p each."""
    if hits <= 0:
        return 1.0
    if p <= 0 or p >= 1:
        return float(p >= 1)
    terms = (
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(p) + (of - k) * math.log1p(-p)
        for k in range(hits, of + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def chance(hits: int, trained: int, benign: int, allowed: int) -> float:
    """Returns how likely at least so many trained captions exceed all but `allowed` - 1 of the benign ones, by chance.

    Exact where trained and benign captions are exchangeable, whatever their scores: every order of them is as likely
    (negative hypergeometric).

    Args:
        hits: Trained captions above the benign one that is the `allowed`-th highest.
        trained: All trained captions.
        benign: All benign captions.
        allowed: At least 1.
    """
    total = math.comb(trained + benign, trained)
    ways = (
        math.comb(k + allowed - 1, k) * math.comb(trained - k + benign - allowed, trained - k)
        for k in range(hits, trained + 1)
    )
    return sum(ways) / total


def shown(record: EpochRecord, most: int = 60) -> list[str]:
    """Returns the worst captions as lines that a terminal or a picture takes."""
    return [printable(found.caption, most) for found in record.worst]
