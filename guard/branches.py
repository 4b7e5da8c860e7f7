"""What a network is asked about prompts, so that the difference of its answers is their guidance; see `reference`."""

from typing import NamedTuple

import torch

from .condition import Condition

SCALE = "scale"  # the tensor of a condition that says what guidance scale the network is told, (P,)


class Branches(NamedTuple):
    """What a network is asked about prompts, to be subtracted.

    Attributes:
        upper: The prompts, one row each.
        lower: What they are compared with: one row for all of them, or one each.
        width: What the difference is divided by.
    """

    upper: Condition
    lower: Condition
    width: float

    @property
    def shared(self) -> bool:
        """Whether one row serves every prompt."""
        return len(self.lower) == 1 and SCALE not in self.lower.tensors

    def lower_rows(self, rows: int) -> Condition:
        """Returns the lower branch with so many rows, one for each prompt."""
        return self.lower if len(self.lower) == rows else self.lower[[0] * rows]


def at_scale(condition: Condition, scale: float) -> Condition:
    """Returns the prompts with what the network is to be told as its guidance scale."""
    device = next(iter(condition.tensors.values())).device
    return Condition(**condition.tensors, **{SCALE: torch.full((len(condition),), float(scale), device=device)})


def without_scale(condition: Condition) -> Condition:
    """Returns the prompts alone: the network is told its own default."""
    return Condition(**{name: tensor for name, tensor in condition.tensors.items() if name != SCALE})
