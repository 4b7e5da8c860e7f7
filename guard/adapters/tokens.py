"""Token saliency: how strongly a score depends on each word of a prompt, by gradients at its token embeddings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..condition import Span
from ..denoiser import Condition
from ..errors import NotApplicable
from ..memory import memory_needed


def token_saliency(
    encoders: Sequence[Any],
    tokenizers: Sequence[tuple[Any, int]],
    encode: Callable[[str], Condition],
    prompt: str,
    spans: Sequence[Span],
    score: Callable[[Condition], Tensor],
) -> list[float]:
    """Measures the gradient norm of score(encode(prompt)) at the tokens of each span, summed over tokens and encoders.

    Args:
        encoders: Text encoders, in the order of their tokenizers.
        tokenizers: Each with the number of tokens after which the pipeline cuts.
        encode: Turns a prompt into a condition as the pipeline does, differentiably.
        prompt: One prompt.
        spans: Character ranges in it, ascending.
        score: Maps a condition of one row to a number, differentiably.

    Returns:
        One number >= 0 for each span; 0 for what no encoder reads. Higher = the score depends more on it.

    Raises:
        NotApplicable: The pipeline encodes prompts without gradients.
        OutOfMemory: The gradient does not fit on the device.
    """
    with torch.inference_mode(False), torch.enable_grad(), _tracked(encoders) as tracked:
        total = score(encode(prompt)).sum()
        if not total.requires_grad:
            raise NotApplicable("the pipeline encodes prompts without gradients")
        with memory_needed("the device has no memory for the gradient of a single row"):
            # only what is asked for: backward() would leave gradients on the model's weights
            gradients = torch.autograd.grad(total, list(tracked.values()), allow_unused=True)
    gradient_of = dict(zip(tracked, gradients, strict=True))
    totals = [0.0] * len(spans)
    for encoder, (tokenizer, limit) in zip(encoders, tokenizers, strict=True):
        gradient = gradient_of.get(id(encoder))
        if gradient is None:
            continue
        norms = gradient[0].float().norm(dim=-1).tolist()
        for i, (first, last) in enumerate(_token_ranges(tokenizer, prompt, spans, limit)):
            totals[i] += sum(norms[first:last])
    return totals


span_gradients = token_saliency  # the former name


def token_rows(places: Sequence[tuple[Any, int, int]], prompt: str, spans: Sequence[Span]) -> list[list[int]]:
    """Returns the rows of a text condition that belong to each character range of a prompt, ascending.

    Args:
        places: Each tokenizer with the number of tokens after which the pipeline cuts, and the row of its first token;
            tokenizers whose states lie side by side have the same.
        prompt: One prompt.
        spans: Character ranges in it, ascending.
    """
    rows: list[set[int]] = [set() for _ in spans]
    for tokenizer, limit, start in places:
        # the end's token takes the last place of a prompt that is cut off
        for found, (first, last) in zip(rows, _token_ranges(tokenizer, prompt, spans, limit - 1), strict=True):
            found |= set(range(start + first, start + last))
    return [sorted(found) for found in rows]


@contextmanager
def _tracked(encoders: Sequence[Any]) -> Iterator[dict[int, Tensor]]:
    """Collects each encoder's token embeddings (1, L, D) as it runs, as leaves of the graph."""
    embeddings: dict[int, Tensor] = {}

    def keeper(key: int) -> Callable[[Any, Any, Tensor], Tensor]:
        def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
            embeddings[key] = output.detach().clone().requires_grad_()
            return embeddings[key]

        return keep

    handles = [table.register_forward_hook(keeper(id(e))) for e in encoders for table in _tables(e)]
    try:
        yield embeddings
    finally:
        for handle in handles:
            handle.remove()


def _tables(encoder: Any) -> list[Any]:
    """Its token embeddings: T5 names one module and uses another with the same weights."""
    weight = encoder.get_input_embeddings().weight
    return [m for m in encoder.modules() if isinstance(m, torch.nn.Embedding) and m.weight is weight]


def _token_ranges(tokenizer: Any, prompt: str, spans: Sequence[Span], limit: int) -> Iterator[Span]:
    """Token positions of each span, counted by tokenizing what comes before it; empty past the limit."""
    first = _specials_before(tokenizer, prompt)
    last = 0
    for start, end in spans:
        if last >= limit:
            yield limit, limit
            continue
        before = _count(tokenizer, prompt[:start])
        last = max(before + 1, _count(tokenizer, prompt[:end]))
        yield min(first + before, limit), min(first + last, limit)


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def _specials_before(tokenizer: Any, prompt: str) -> int:
    bare = tokenizer(prompt, add_special_tokens=False).input_ids
    full = tokenizer(prompt).input_ids
    found = (i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    # behind a template's last words a first word may be written differently than at a text's beginning
    return next(found, _common(full, tokenizer("").input_ids))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
