"""Clean latents and what a denoiser says of their noised copies, averaged over draws; shared by membership signals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError
from ..progress import Progress
from .batching import in_batches, rows_per_call
from .spectral import check_latents


@dataclass(frozen=True)
class Rows:
    """Some rows of a network call.

    Attributes:
        z: Clean latents, (R, C, H, W).
        level: One noise level per row.
        image, draw: Which image and which noise draw each row is about, (R,).
        ask: The denoiser's noise for latents (R, C, H, W) at these levels, with these images' conditions.
    """

    z: Tensor
    level: NoiseLevel
    image: Tensor
    draw: Tensor
    ask: Callable[[Tensor], Tensor]

    def noised(self, noise: Tensor) -> Tensor:
        """Returns the noised latents alpha z + sigma noise, (R, C, H, W)."""
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in (self.level.alpha, self.level.sigma))
        return alpha * self.z + sigma * noise


class Questions:
    """Latents, noise levels and conditions, checked, and how many rows share a call.

    Args:
        denoiser: The model.
        latents: Clean latents, (B, C, H, W).
        timesteps: T times, in the model's own unit.
        condition: The prompts, one row, or one per image; by default the empty prompt.
        raw: Ask for the network's own output in place of its noise.
        batch_rows: Most rows a call has; see `batching.rows_per_call`.
        progress: Called with the numbers of rows done and of all.

    Raises:
        InputError: Latents or timesteps that do not fit the model, or NaN in them, or conditions that do not fit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        timesteps: Sequence[float] | Tensor,
        condition: Condition | Tensor | None = None,
        *,
        raw: bool = False,
        batch_rows: int | None = None,
        progress: Progress | None = None,
    ):
        check_latents(denoiser, latents)
        times = torch.as_tensor(timesteps).reshape(-1)
        if not len(times):
            raise InputError("no timestep was given: name at least one")
        self.denoiser, self.raw, self.progress = denoiser, raw, progress
        self.latents = latents.to(denoiser.device, torch.float32)
        self.times = times
        self.levels = denoiser.level(times).to(denoiser.device)
        self.condition = denoiser.empty if condition is None else Condition.of(condition)
        if len(self.condition) not in (1, len(latents)):
            raise InputError(
                f"{len(self.condition)} conditions do not fit {len(latents)} images: give one, or one per image"
            )
        self.batch_rows = rows_per_call(denoiser, latents.shape[1:], batch_rows)

    def noise(self, x: Tensor, level: NoiseLevel, image: Tensor) -> Tensor:
        """Returns the denoiser's noise (or raw output) for rows x, each with its image's condition."""
        prompts = self.condition if len(self.condition) == 1 else self.condition[image.cpu()]
        prediction = self.denoiser.predict(x, level, prompts)
        return prediction.raw if self.raw else prediction.noise

    def mean(self, draws: int, value: Callable[[Rows], Tensor]) -> Tensor:
        """Returns the mean over draws of a value per row (R, ...), (T, B, ...) float64 on the CPU."""
        count, times = len(self.latents), len(self.times)

        def ask(rows: slice) -> Tensor:
            number = torch.arange(rows.start, rows.stop, device=self.latents.device)
            draw, image, time = number % draws, number // draws % count, number // (draws * count)
            level = self.levels[time]
            return value(Rows(self.latents[image], level, image, draw, lambda x: self.noise(x, level, image)))

        total: Tensor | None = None
        for rows, answer in in_batches(ask, times * count * draws, self.batch_rows, self.progress):
            answer = answer.double().cpu()
            if total is None:
                total = answer.new_zeros(times * count, *answer.shape[1:])
            total.index_add_(0, torch.arange(rows.start, rows.stop) // draws, answer)
        if total is None:  # there is at least one image and one time
            raise InputError(f"the number of noise draws is at least 1, not {draws}")
        return (total / draws).view(times, count, *total.shape[1:])


def shared_noise(latents: Tensor, draws: int, seed: int, *, pairs: bool = False) -> Tensor:
    """Draws noise that all images share, from a private generator on the CPU, equal on every device.

    Args:
        latents: Latents (B, C, H, W) whose shape and device the noise takes.
        draws: The number of draws.
        seed: The generator's seed.
        pairs: Every other draw is the negative of the one before.

    Returns:
        (draws, C, H, W), standard normal.

    Raises:
        InputError: Less than one draw.
    """
    if draws < 1:
        raise InputError(f"the number of noise draws is at least 1, not {draws}")
    generator = torch.Generator().manual_seed(seed)
    fresh = -(-draws // 2) if pairs else draws
    noise = torch.randn(fresh, *latents.shape[1:], generator=generator)
    if pairs:
        noise = torch.stack([noise, -noise], 1).flatten(0, 1)[:draws]
    return noise.to(latents.device)


def energy(x: Tensor, power: int = 2) -> Tensor:
    """Returns the sum over each row of |x|^power, (R,) float64."""
    return x.double().abs().pow(power).flatten(1).sum(1)
