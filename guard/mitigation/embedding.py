"""Moves a prompt's embedding until guidance neither looks memorized nor pulls to the same image.

References:
    Wen et al., ICLR 2024, arXiv 2407.21720: AdamW on the conditional embedding, first token kept;
    Asthana & Belagiannis, ICLR 2026, arXiv 2601.20642: the same on their own score.
Theirs lower a score; a scaled-down pull still leads to the same image, so ours also turns its direction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration import Calibration
from ..denoiser import Condition, Denoiser
from ..errors import InputError, OutOfMemory
from ..memory import memory_needed
from .objective import COMFORTABLE, LIMIT, Objective

LEARNING_RATE = 0.05
STEPS = 50
MOVED = ("text", "pooled")  # of a condition: the tokens, and the vector that sums them up where a model reads one
SIMILARITY_WEIGHT = 4.0  # of guidance similarity against the score, a logarithm of energy
MARGIN = 0.2  # below LIMIT when stopping: fresh noise measures a little differently, and what stops close comes back


@dataclass(frozen=True)
class Optimised:
    """A condition that was optimised, one row, after so many steps."""

    condition: Condition
    steps: int
    forward_rows: int
    backward_rows: int


def optimise_embedding(
    denoiser: Denoiser,
    calibration: Calibration,
    original: Condition,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    target: float | None = None,
    direction: bool = True,
    margin: float = MARGIN,
    steps: int = STEPS,
) -> Optimised:
    """Optimises the text embedding of one prompt, stopping as early as it can.

    Args:
        denoiser: The model; its weights are not touched.
        calibration: The model's calibration.
        original: The prompt's condition, one row.
        seed: The seed of the private noise.
        shape: The latent's shape, (C, H, W).
        target: Stop at a score at or below it; by default one that benign prompts comfortably have.
        direction: Also turn guidance away from the original's. Without, this is Wen et al.'s procedure on our score.
        margin: How far below LIMIT the guidance similarity must fall; a wider one changes more, and is surer to hold on
            fresh noise.
        steps: The most steps that are taken.

    Returns:
        The optimised condition, and what it cost.

    Raises:
        InputError: More than one prompt.
        NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    if len(original) != 1:
        raise InputError(f"one prompt is optimised at a time, not {len(original)}")
    target = comfortable(calibration) if target is None else target
    # usable inside inference mode, too
    with torch.inference_mode(False), torch.enable_grad():
        start = {name: tensor.detach().clone() for name, tensor in original.tensors.items() if name in MOVED}
        fixed = {name: tensor.detach().clone() for name, tensor in original.tensors.items() if name not in MOVED}
        objective = Objective(denoiser, calibration, original, seed=seed, shape=shape)
        moved = {name: tensor.float().requires_grad_() for name, tensor in start.items()}
        optimiser = torch.optim.AdamW(moved.values(), lr=LEARNING_RATE)
        step = 0
        for step in range(steps + 1):
            now = objective(Condition(**moved, **fixed), grad=step < steps)
            if step == steps or _done(now.score, now.guidance_similarity, target, LIMIT - margin if direction else 1.0):
                break
            loss = now.score + SIMILARITY_WEIGHT * now.guidance_similarity if direction else now.score
            gradients = _gradients(loss, list(moved.values()), objective)
            if gradients is None:
                continue
            for tensor, gradient in zip(moved.values(), gradients, strict=True):
                tensor.grad = gradient
            moved["text"].grad[:, 0] = 0  # type: ignore[index]  # the first token carries no prompt
            optimiser.step()
    condition = Condition(**{name: moved[name].detach().to(start[name].dtype) for name in moved}, **fixed)
    return Optimised(condition, step, objective.forward_rows, objective.backward_rows)


def comfortable(calibration: Calibration) -> float:
    """Returns a score that a share COMFORTABLE of benign prompts exceeds, and never more than the threshold."""
    benign = torch.tensor(calibration.scores, dtype=torch.float64)
    return min(calibration.threshold, benign.quantile(1 - COMFORTABLE).item())


def _gradients(loss: Tensor, moved: list[Tensor], objective: Objective) -> list[Tensor] | None:
    """The gradients in what is moved. None, and one row at a time from now on, if memory runs out the first time."""
    try:
        with memory_needed("the device has no memory for the gradient of a single row"):
            found = torch.autograd.grad(loss.sum(), moved, allow_unused=True)
            return [torch.zeros_like(part) if g is None else g for part, g in zip(moved, found, strict=True)]
    except OutOfMemory:
        if not objective.save_memory():
            raise
        return None


def _done(score: Tensor, similarity: Tensor, target: float, limit: float) -> bool:
    return score.item() <= target and similarity.item() <= limit
