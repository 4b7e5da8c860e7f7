"""Published rivals of the memorization score: (P,) float32, higher = more likely memorized."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..denoiser import Condition, Denoiser
from .draws import draw_noise
from .memorization import memorization_score


def wen_norm(
    denoiser: Denoiser, condition: Condition | Tensor, *, draws: int = 4, seed: int = 0, noise: Tensor | None = None
) -> Tensor:
    """Returns the norm of the guidance vector at the first step (Wen et al. 2024, arXiv 2407.21720); equal to `iso`."""
    return memorization_score(denoiser, condition, draws=draws, seed=seed, noise=noise).iso


def sharpness(
    denoiser: Denoiser,
    condition: Condition | Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
    noise: Tensor | None = None,
    batch_rows: int = 64,
) -> Tensor:
    """Returns ||H g||^2 at pure noise, g the guidance vector, H its Jacobian (Jeon et al. 2025, arXiv 2412.04140).

    It takes one jvp per draw. Arguments and errors are those of `memorization_score`; noise is
    (draws, C, H, W) or (P, draws, C, H, W).
    """
    denoiser.require_guidance()
    condition = Condition.of(condition)
    if noise is None:
        noise = draw_noise(denoiser, draws, seed)
    noise = (noise if noise.ndim == 5 else noise.unsqueeze(0).expand(len(condition), *noise.shape)).to(denoiser.device)
    level, draws = denoiser.levels.pure_noise, noise.shape[1]
    size = max(1, batch_rows // (2 * draws))
    scores = []
    for start in range(0, len(condition), size):
        x = noise[start : start + size].flatten(0, 1).contiguous()  # prompts may share their noise
        prompts = len(x) // draws
        text = condition[torch.arange(start, start + prompts).repeat_interleave(draws)]
        asked = denoiser.branches(text)
        both = Condition.cat([asked.upper, asked.lower_rows(len(x))])

        def guidance(x: Tensor, both: Condition = both, width: float = asked.width) -> Tensor:
            upper, lower = denoiser.predict(torch.cat([x, x]), level, both, grad=True).pull.chunk(2)
            return (upper - lower) / width

        # the fused attention kernels have no forward-mode derivative
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            moved = torch.func.jvp(guidance, (x,), (guidance(x),))[1]
        scores.append(moved.flatten(1).square().sum(-1).view(prompts, draws).mean(-1).cpu())
    return torch.cat(scores)
