"""Prompts, what they become for a network (named tensors with one row each), and how a score hangs on their words."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .printable import printable
from .prompt_text import fault

TOKENS = "tokens"  # the tensor of a condition that says how many rows of the text count, (P,)
UNTIL = "until"  # the tensor that says where a step ends, a flow time, for networks that are told, (P,)


class Condition:
    """What prompts become: named tensors with one row per prompt, e.g. text (P, L, D) and pooled (P, D).

    Texts of different lengths share one tensor where `tokens` (P,) says how many of each row's L count.
    """

    def __init__(self, **tensors: Tensor):
        self.tensors = tensors

    @staticmethod
    def of(value: "Condition | Tensor") -> "Condition":
        """Returns a condition as it is, and a bare tensor (P, L, D) as one whose tensor is named text."""
        return value if isinstance(value, Condition) else Condition(text=value)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Any) -> "Condition":
        """Rows by a slice, a list or an index tensor, in that order and as often as named."""
        return Condition(**{name: tensor[rows] for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(conditions: "Sequence[Condition]") -> "Condition":
        """Joins the rows of all conditions. Raises InputError where shapes differ and no `tokens` tell why."""
        conditions = alike(conditions)
        first = conditions[0].tensors
        for other in conditions[1:]:
            shapes = [{n: t.shape[1:] for n, t in c.tensors.items()} for c in (conditions[0], other)]
            if shapes[0] != shapes[1]:
                raise InputError(f"conditions of different shapes cannot share a call: {shapes[0]} and {shapes[1]}")
        return Condition(**{name: torch.cat([c.tensors[name] for c in conditions]) for name in first})

    def padded(self, length: int) -> "Condition":
        """Returns the same with as many rows of text, zeros behind those that count."""
        text = self.tensors["text"]
        padded = torch.nn.functional.pad(text, (0, 0, 0, length - text.shape[1]))
        return Condition(**{**self.tensors, "text": padded})


def alike(conditions: Sequence[Condition]) -> Sequence[Condition]:
    """Returns conditions with texts of one length, where `tokens` tell how many of them count."""
    if not all(TOKENS in condition.tensors for condition in conditions):
        return conditions
    longest = max(condition.tensors["text"].shape[1] for condition in conditions)
    return [condition.padded(longest) for condition in conditions]


def own_copy(condition: Condition) -> Condition:
    """Returns a copy that stays usable, with gradients too, whatever mode a pipeline runs in."""
    with torch.inference_mode(False):
        return Condition(**{name: tensor.detach().clone() for name, tensor in condition.tensors.items()})


def without_extras(condition: Condition, empty: Condition) -> Condition:
    """Returns only those tensors that the empty prompt has, too; the size embedding, e.g., is the model's default."""
    return Condition(**{name: condition.tensors[name] for name in empty.tensors})


def without_step(condition: Condition) -> Condition:
    """Returns what a condition says of the prompt alone, and not of the sampler's step."""
    return Condition(**{name: tensor for name, tensor in condition.tensors.items() if name != UNTIL})


def with_extras(empty: Condition, other: Condition) -> Condition:
    """Returns the empty prompt, one row, with what else (e.g. the size embedding) the other condition says."""
    extra = {name: tensor[:1] for name, tensor in other.tensors.items() if name not in empty.tensors}
    return Condition(**empty.tensors, **extra)


def is_empty(rows: Condition, empty: Condition, beside: Condition) -> bool:
    """Returns whether rows say what the empty prompt does, with what else the rows beside them say."""
    for name, tensor in with_extras(empty, beside).tensors.items():
        present = rows.tensors[name]
        if present.shape[1:] != tensor.shape[1:]:
            return False
        if not torch.allclose(present.float(), tensor.to(present).float().expand_as(present), rtol=1e-3, atol=1e-4):
            return False
    return True


def mean_text(condition: Condition) -> Tensor | None:
    """Returns the mean of each text's rows that count, (P, D) float32 on the CPU; None where there is no text.

    Rows of padding that `tokens`, or a mask (P, L), leaves out do not count; without either, all do.
    """
    text = condition.tensors.get("text")
    if text is None or text.ndim != 3:
        return None
    tokens, mask = condition.tensors.get(TOKENS), condition.tensors.get("mask")
    counted = torch.ones(text.shape[:2], device=text.device)
    if tokens is not None:
        counted = (torch.arange(text.shape[1], device=text.device) < tokens.to(text.device).view(-1, 1)).float()
    elif mask is not None and mask.shape == text.shape[:2]:
        counted = (mask.to(text.device) > 0).float()
    total = counted.sum(1, keepdim=True).clamp_min(1)
    # one by one, since texts in float32 may take more memory than there is
    sums = [weights @ rows.float() for weights, rows in zip(counted, text.detach(), strict=True)]
    return (torch.stack(sums) / total).cpu() if sums else text.new_zeros(0, text.shape[2], dtype=torch.float32).cpu()


def texts_of(prompt: str | Sequence[str]) -> list[str]:
    """Returns one or more prompts as a list; the empty one is allowed.

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


TEXTS = 64  # that are encoded and measured at a time, to find out what each word does
Span = tuple[int, int]  # of characters
Score = Callable[[Condition, bool], Tensor]  # of P conditions, (P,); with True, differentiable in their tensors


def occlusion_saliency(
    encode: Callable[[list[str]], Condition], prompt: str, spans: Sequence[Span], score: Score
) -> list[float]:
    """Returns how much the score falls when each character range of the prompt is left out; needs no gradients.

    Of a long prompt, neighbours are left out together first, and one by one only where that counts most.

    Returns:
        One number >= 0 per span, higher = the score depends more on it; 0 where the score does not fall.
    """

    def drops(ranges: Sequence[Span]) -> list[float]:
        texts = [prompt, *(" ".join((prompt[:a] + prompt[b:]).split()) for a, b in ranges)]
        values = score(encode(texts), False)
        return (values[0] - values[1:]).clamp_min(0).tolist()

    size = -(-len(spans) // TEXTS)
    if size <= 1:
        return drops(spans)
    groups = [range(start, min(start + size, len(spans))) for start in range(0, len(spans), size)]
    coarse = drops([(spans[group[0]][0], spans[group[-1]][1]) for group in groups])
    order = sorted(range(len(groups)), key=lambda k: -coarse[k])
    chosen = [i for k in order[: max(1, TEXTS // size)] for i in groups[k]]
    saliency = [0.0] * len(spans)
    for i, value in zip(chosen, drops([spans[i] for i in chosen]), strict=True):
        saliency[i] = value
    return saliency


span_drops = occlusion_saliency  # the former name
