"""What a monitor finds at one moment of a training, and what of it is more than chance."""

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CaptionScore:
    """An image that is trained on, by its caption.

    Attributes:
        caption: The caption's text.
        score: By how much the image is denoised better than before training: the error fell to exp(-score) of what it
            was; higher = more likely memorized.
        p_value: The share of held-out images whose error fell as far, in (0, 1]; small = unlike held-out ones.
    """

    caption: str
    score: float
    p_value: float


@dataclass(frozen=True)
class EpochRecord:
    """What a monitor found when it was called.

    Attributes:
        epoch: What it was told: a number of epochs or steps.
        captions: How many images were measured.
        flagged: How many of them are denoised better by more than at most a share `alpha` of held-out images are.
        flags: Which these are: their numbers in the monitor's `captions`, from 0.
        share: `flagged` of `captions`; None where nothing could be measured, and `reason` says why.
        interval: The exact 95 % interval of the share (Clopper and Pearson), for images of the same kind.
        p_value: How likely held-out images in place of the trained ones would give as many flags; exact.
        level: What `p_value` is compared with: less from call to call, so that a whole training raises a false alarm
            at most as often as `significance` says.
        took_off: Whether more images are flagged than chance explains.
        worst: The images with the highest scores, highest first.
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
        words = f"epoch {self.epoch:g}: {self.flagged} of {self.captions} images flagged ({low:.0%} to {high:.0%})"
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
