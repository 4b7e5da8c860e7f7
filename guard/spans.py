"""How strongly a score hangs on each word of a prompt, by leaving it out."""

from collections.abc import Callable, Sequence

from torch import Tensor

from .condition import Condition

Span = tuple[int, int]  # of characters
Score = Callable[[Condition, bool], Tensor]  # of P conditions, (P,); with True, differentiable in their tensors


def span_drops(
    encode: Callable[[list[str]], Condition], prompt: str, spans: Sequence[Span], score: Score
) -> list[float]:
    """How much the score falls without each character range of the prompt, 0 where it does not; needs no gradients."""
    texts = [prompt, *(" ".join((prompt[:a] + prompt[b:]).split()) for a, b in spans)]
    values = score(encode(texts), False)
    return (values[0] - values[1:]).clamp_min(0).tolist()
