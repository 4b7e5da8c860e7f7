"""Small denoisers with known answers."""

from typing import Any

import torch
from torch import Tensor

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import NotApplicable

ABAR = torch.linspace(0.9999, 0.005, 1000, dtype=torch.float64)
SHAPE = (3, 4, 4)


def linear(seed: int = 0, **options: object) -> CallableDenoiser:
    """noise(x, t, c) = A x + (1 + t / 1000) * B(c): guidance does not depend on x, and is known exactly."""
    generator = torch.Generator().manual_seed(seed)
    size = 48
    a = torch.randn(size, size, generator=generator) / 10
    b = torch.randn(5, size, generator=generator)

    def fn(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        pull = condition.mean(1) @ b * (1 + t[:, None] / 1000)
        return (x.flatten(1) @ a + pull).view_as(x)

    empty = torch.zeros(1, 2, 5)
    return CallableDenoiser(fn, ABAR, empty=empty, latent_shape=SHAPE, **options)  # type: ignore[arg-type]


def without_guidance(denoiser: Any) -> Any:
    """The same one, which says that nothing can be told of it, as refiners do."""

    def refuse() -> None:
        raise NotApplicable("this model starts from an image, not from pure noise")

    denoiser.require_guidance = refuse
    return denoiser


def prompts(count: int, seed: int = 1) -> Tensor:
    """(P, 2, 5) random conditions."""
    return torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(seed))
