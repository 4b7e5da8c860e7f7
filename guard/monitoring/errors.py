"""How well a network denoises given images: those that it learns by heart it denoises better than any others."""

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser
from ..errors import InputError
from ..signals.batching import in_batches, rows_per_call
from ..signals.draws import draw_noise


def denoising_errors(
    denoiser: Denoiser,
    condition: Condition,
    latents: Tensor,
    *,
    fraction: float,
    draws: int,
    seed: int,
    batch_rows: int | None = None,
) -> Tensor:
    """Returns the mean squared error of the noise in noisy copies of images, (P,) float64; smaller = better known.

    All images get the same draws of noise, so that trained and other images differ in nothing but themselves.

    Args:
        denoiser: The model.
        condition: The captions of P images, one row each.
        latents: The images' latents, (P, C, H, W).
        fraction: How noisy the copies are: 0 is clean, 1 pure noise.
        draws: Noisy copies of each image; each is a row of the network.
        seed: The noise's seed.
        batch_rows: Most rows that a call has; see `batching.rows_per_call`.

    Raises:
        InputError: Not one caption per image, or no draws.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits.
    """
    if latents.ndim != 4 or len(condition) != len(latents):
        raise InputError(f"{len(condition)} captions do not fit latents of shape {tuple(latents.shape)}: one for each")
    shape = (int(latents.shape[1]), int(latents.shape[2]), int(latents.shape[3]))
    noise = draw_noise(denoiser, draws, seed, shape)
    level = denoiser.levels.fraction(fraction)
    alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in (level.alpha, level.sigma))

    def ask(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop)
        image, draw = number // draws, number % draws
        noisy = alpha * latents[image].float() + sigma * noise[draw]
        answer = denoiser.predict(noisy, level, condition[image]).noise.cpu()
        return (answer - noise[draw]).double().square().mean((1, 2, 3))

    count = len(latents) * draws
    calls = in_batches(ask, count, rows_per_call(denoiser, shape, batch_rows))
    return torch.cat([errors for _, errors in calls]).view(len(latents), draws).mean(1)
