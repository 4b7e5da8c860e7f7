"""What a mitigation did, and whether it held on fresh noise."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..denoiser import Condition

Method = Literal["rewrite", "embed", "reseed"]


@dataclass(frozen=True)
class WordChange:
    """One edit of a prompt.

    Attributes:
        kind: "drop", "swap" or "insert".
        word: The word of the original ("" for an insertion).
        became: What stands there now ("" for a drop).
        significance: How strongly the score hangs on the word; higher = pulls harder towards recitation.
    """

    kind: Literal["drop", "swap", "insert"]
    word: str
    became: str
    significance: float


@dataclass(frozen=True)
class Mitigation:
    """Result of trying to mend one prompt.

    Attributes:
        method: What was tried.
        held: Whether the result passed a test on noise it was not made with.
        reason: Why it did not, or None.
        original, rewritten: The prompt before and after; both None where only embeddings are known. Without a
            rewriting they are equal.
        words: What was changed, in order; empty unless rewritten.
        score_before, score_after: On the test noise; higher = more likely memorized. This and what follows is None
            where the method could not be carried out.
        p_before, p_after: Their p-values.
        recall: How much the result pulls to the original's image, in [-1, 1]; see signals.recall.
        similarity: Cosine in [-1, 1] between the text conditions before and after; 1 for a reseed.
        forward_rows, backward_rows: Rows that went through the network, and that were differentiated.
    """

    method: Method
    held: bool
    reason: str | None
    original: str | None
    rewritten: str | None
    words: list[WordChange]
    score_before: float | None
    score_after: float | None
    p_before: float | None
    p_after: float | None
    recall: float | None
    similarity: float | None
    forward_rows: int
    backward_rows: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Mended:
    """A mitigation, and what to sample with: a condition of one row, or a noise (1, C, H, W)."""

    mitigation: Mitigation
    condition: Condition | None = None
    noise: Tensor | None = None


def similarity(condition: Condition, original: Condition) -> Tensor:
    """(P,) cosine in [-1, 1] between the mean text conditions of P rows and of the original's one."""
    return torch.cosine_similarity(_summary(condition), _summary(original))


def _summary(condition: Condition) -> Tensor:
    text = condition.tensors["text"].detach().float().cpu()
    mask = condition.tensors.get("mask")
    if mask is None:
        return text.mean(1)
    weights = mask.float().cpu().unsqueeze(-1)
    return (text * weights).sum(1) / weights.sum(1).clamp_min(1)
