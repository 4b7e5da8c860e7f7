"""What score a prompt's words lead to expect, learned from benign prompts: a part of it is taken off the score.

Benign prompts differ by what they speak of: a plain everyday prompt pulls harder than a vague title, without any
memory, so a title has far to climb before it stands out among all. Ridge regression on the mean text embedding tells
how high a benign prompt of such words scores. Only a part is taken off, since words that call up a memory tell so, too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import CalibrationError

SHARE = 0.25  # of the expectation that is taken off; chosen on development captions, see docs/results.md
RIDGE = 1.0  # on embeddings of length 1, likewise
DIGITS = 6  # of the numbers that are kept


@dataclass(frozen=True)
class Expectation:
    """The part of the expected score that is taken off, as a function of the mean text embedding e of a prompt.

    It is direction . (e - centre) / ||e - centre||. No prompt can be read from it: of each prompt that it was learned
    from it holds no more than a share in two means.

    Attributes:
        centre: Mean embedding of the benign prompts, (D,); empty where words tell nothing of the score.
        direction: By how much each part of an embedding raises the expectation, (D,); empty likewise.
    """

    centre: list[float]
    direction: list[float]

    def of(self, words: Tensor | None) -> Tensor | float:
        """Returns what is taken off the scores of P prompts, (P,) float64 on the CPU; 0.0 where words tell nothing.

        Args:
            words: Their mean text embeddings, (P, D), as `condition.mean_text` gives them.

        Raises:
            CalibrationError: There are no embeddings, or those of another text encoder.
        """
        if not self.direction:
            return 0.0
        if words is None or words.shape[1] != len(self.direction):
            other = "none" if words is None else f"embeddings of {words.shape[1]} numbers"
            raise CalibrationError(
                f"this calibration reads text embeddings of {len(self.direction)} numbers, and the prompt has {other}: "
                "calibrate again, by this model's own words or without"
            )
        return _unit(words, torch.tensor(self.centre)) @ torch.tensor(self.direction, dtype=torch.float64)


def learn(words: Tensor, scores: Tensor) -> tuple[Expectation, Tensor]:
    """Learns what is taken off from n benign prompts.

    Args:
        words: Their mean text embeddings, (n, D).
        scores: Their scores, (n,).

    Returns:
        The expectation, and what the other prompts lead to take off each of the n, (n,) float64, so that none is
        compared with itself. Both are empty or 0 where that would not make benign scores more alike.
    """
    words, scores = words.cpu().double(), scores.cpu().double()
    centre = words.mean(0)
    x, y = _unit(words, centre), scores - scores.mean()
    # in the smaller of two spaces: x' (x x' + r)^-1 = (x' x + r)^-1 x'
    if x.shape[1] < len(x):
        inverse = torch.linalg.inv(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype))
        direction, leverage = inverse @ (x.T @ y), (x @ inverse * x).sum(1)
    else:
        inverse = torch.linalg.inv(x @ x.T + RIDGE * torch.eye(len(x), dtype=x.dtype))
        direction, leverage = x.T @ (inverse @ y), 1 - RIDGE * inverse.diagonal()
    fitted = x @ direction
    left_out = SHARE * (fitted - leverage * y) / (1 - leverage)
    if not (scores - left_out).var() < scores.var():
        return Expectation([], []), torch.zeros_like(scores)
    return Expectation(_kept(centre), _kept(SHARE * direction)), left_out


def _unit(words: Tensor, centre: Tensor) -> Tensor:
    away = words.cpu().double() - centre.double()
    return away / away.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _kept(values: Tensor) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
