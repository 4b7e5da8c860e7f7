"""Chooses, or moves, the noise that sampling starts from, for prompts that are memorized from some noises only.

Reference: SAIL, Jeon et al. 2025, arXiv 2412.04140 (the sharpness objective).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..combination import Combination
from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError
from ..memory import memory_needed
from ..signals.alignment import Alignment
from ..signals.draws import derived_seed
from ..signals.guidance import Guidance
from ..signals.rings import ring_energy

CANDIDATES = 8
LEARNING_RATE = 0.05
STEPS = 10
NEIGHBOURHOOD = 0.1  # how far the fresh draws of the test lie from the chosen noise


@dataclass(frozen=True)
class Selected:
    """The noise (1, C, H, W) with the lowest score among the candidates, and all scores (K,), lower = better."""

    noise: Tensor
    scores: Tensor
    forward_rows: int


def select_noise(
    denoiser: Denoiser, form: Combination, condition: Condition, noises: Tensor, level: NoiseLevel | None = None
) -> Selected:
    """Selects the best of several noises for one prompt, by the score at each noise alone.

    Args:
        denoiser: The model.
        form: How guidance becomes a score; a calibration's, or another.
        condition: One prompt.
        noises: The candidates, (K, C, H, W).
        level: Where the score is taken, a calibration's or by default pure noise.

    Returns:
        The noise with the lowest score, all scores, and what they cost.

    Raises:
        InputError: No noise.
        NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    guidance = Guidance(denoiser, noises, level=level)
    alignment = Alignment(denoiser, noises) if form.takes_alignment else None
    low = None if alignment is None else alignment(condition)[0]
    scores = form.score(ring_energy(guidance(condition)[0]), low)
    best = int(scores.argmin())
    rows = guidance.forward_rows + (0 if alignment is None else alignment.guidance.forward_rows)
    return Selected(noises[best : best + 1], scores, rows)


def neighbours(noise: Tensor, draws: int, seed: int) -> Tensor:
    """Returns normal draws (draws, C, H, W) close to a noise (1, C, H, W), which a choice of noise must withstand."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "neighbours"))
    fresh = torch.randn(draws, *noise.shape[1:], generator=generator).to(noise)
    return (1 - NEIGHBOURHOOD**2) ** 0.5 * noise + NEIGHBOURHOOD * fresh


def optimise_noise(
    denoiser: Denoiser,
    condition: Condition,
    noise: Tensor,
    *,
    steps: int = STEPS,
    norm_weight: float = 0.05,
    target: float | None = None,
) -> Tensor:
    """SAIL: moves a noise (1, C, H, W) to where guidance is less sharp, by Adam.

    objective = ||g(x + d/|d|) - g(x)||^2 + norm_weight ||x||^2 with g the guidance vector and d = g(x) held fixed.

    Args:
        denoiser: The model.
        condition: One prompt.
        noise: The noise to start from; it is left as it is.
        steps: The most steps that are taken.
        norm_weight: Keeps x from growing; Adam's steps are so small in number that it shrinks by a third at most.
        target: Stop when the sharpness term is at or below it; by default never.

    Returns:
        The moved noise, (1, C, H, W).

    Raises:
        InputError: More than one noise or prompt.
        OutOfMemory: The gradient does not fit.
    """
    if noise.ndim != 4 or len(noise) != 1 or len(condition) != 1:
        raise InputError(f"one noise and one prompt at a time, not {tuple(noise.shape)} and {len(condition)}")
    level, asked = denoiser.levels.pure_noise, denoiser.branches(condition)
    both = Condition.cat([asked.upper, asked.lower])

    def guidance(x: Tensor) -> Tensor:
        upper, lower = denoiser.predict(torch.cat([x, x]), level, both, grad=True).pull.chunk(2)
        return (upper - lower) / asked.width

    with torch.inference_mode(False), torch.enable_grad():
        x = noise.detach().clone().to(denoiser.device).requires_grad_()
        optimiser = torch.optim.Adam([x], lr=LEARNING_RATE)
        for _ in range(steps):
            here = guidance(x)
            direction = here.detach() / here.detach().norm().clamp_min(1e-12)
            sharpness = (guidance(x + direction) - here).square().sum()
            if target is not None and sharpness.item() <= target:
                break
            with memory_needed("the device has no memory for the gradient at the initial noise"):
                x.grad = torch.autograd.grad(sharpness + norm_weight * x.square().sum(), x)[0]
            optimiser.step()
    return x.detach()
