"""Prompts, what they become for a network (named tensors with one row each), and how a score hangs on their words."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .printable import printable
from .prompt_text import fault


class Condition:
    """What prompts become: named tensors with one row per prompt, e.g. text (P, L, D) and pooled (P, D).

    Texts of different lengths share one tensor where `tokens` (P,) says how many of each row's L count.
    """

    def __init__(self, **tensors: Tensor):
        self.tensors = tensors

    @staticmethod
    def of(value: "Condition | Tensor") -> "Condition":
        """A bare tensor (P, L, D) becomes the tensor named text."""
        return value if isinstance(value, Condition) else Condition(text=value)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Any) -> "Condition":
        """Rows by a slice, a list or an index tensor, in that order and as often as named."""
        return Condition(**{name: tensor[rows] for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(conditions: "Sequence[Condition]") -> "Condition":
        """The rows of all, one after the other. Raises InputError when their shapes differ and no `tokens` tell why."""
        if all("tokens" in condition.tensors for condition in conditions):
            longest = max(condition.tensors["text"].shape[1] for condition in conditions)
            conditions = [condition._padded(longest) for condition in conditions]
        first = conditions[0].tensors
        for other in conditions[1:]:
            shapes = [{n: t.shape[1:] for n, t in c.tensors.items()} for c in (conditions[0], other)]
            if shapes[0] != shapes[1]:
                raise InputError(f"conditions of different shapes cannot share a call: {shapes[0]} and {shapes[1]}")
        return Condition(**{name: torch.cat([c.tensors[name] for c in conditions]) for name in first})

    def _padded(self, length: int) -> "Condition":
        text = self.tensors["text"]
        padded = torch.nn.functional.pad(text, (0, 0, 0, length - text.shape[1]))
        return Condition(**{**self.tensors, "text": padded})


def texts_of(prompt: str | Sequence[str]) -> list[str]:
    """One or more prompts as a list; the empty one is allowed.

    Raises:
        InputError: No prompt, no text, or a text that is no prompt: broken Unicode, NUL, nothing that can be seen, or
            more characters than tokenizers take in reasonable time.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise InputError(f"prompts are text or a list of at least one, not {printable(prompt)}")
    for number, text in enumerate(prompts, 1):
        reason = fault(text) if text.strip(" ") else None
        if reason is not None:
            which = "the prompt" if len(prompts) == 1 else f"prompt {number} of {len(prompts)}"
            raise InputError(f"{which} {reason}: give a text that can be read, or leave it out")
    return prompts


Span = tuple[int, int]  # of characters
Score = Callable[[Condition, bool], Tensor]  # of P conditions, (P,); with True, differentiable in their tensors


def span_drops(
    encode: Callable[[list[str]], Condition], prompt: str, spans: Sequence[Span], score: Score
) -> list[float]:
    """How much the score falls without each character range of the prompt, 0 where it does not; needs no gradients."""
    texts = [prompt, *(" ".join((prompt[:a] + prompt[b:]).split()) for a, b in spans)]
    values = score(encode(texts), False)
    return (values[0] - values[1:]).clamp_min(0).tolist()
