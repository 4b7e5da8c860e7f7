"""Noise levels, and where a model's named ones lie. A noisy latent is `x = alpha * x0 + sigma * noise`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class NoiseLevel:
    """Noise levels, one per row.

    Attributes:
        alpha: Factor of the clean latent, (R,) float32.
        sigma: Factor of the noise, (R,) float32.
        time: The model's own time: an integer timestep, or a flow time in [0, 1], (R,).
    """

    alpha: Tensor
    sigma: Tensor
    time: Tensor

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, rows: Any) -> "NoiseLevel":
        return NoiseLevel(self.alpha[rows], self.sigma[rows], self.time[rows])

    def expand(self, rows: int) -> "NoiseLevel":
        """Returns the same level for each of `rows` rows; levels that already have that many stay as they are."""
        if len(self) == rows:
            return self
        if len(self) != 1:
            raise InputError(f"{len(self)} noise levels do not fit {rows} rows: give one level or one per row")
        return self[torch.zeros(rows, dtype=torch.long, device=self.alpha.device)]

    def to(self, device: torch.device) -> "NoiseLevel":
        return NoiseLevel(self.alpha.to(device), self.sigma.to(device), self.time.to(device))

    @staticmethod
    def cat(levels: "Sequence[NoiseLevel]") -> "NoiseLevel":
        """Returns the rows of all levels, one after the other."""
        return NoiseLevel(
            torch.cat([level.alpha for level in levels]),
            torch.cat([level.sigma for level in levels]),
            torch.cat([level.time for level in levels]),
        )


class Levels:
    """Where a model's named noise levels lie.

    Args:
        alphas_cumprod: (T,) of a discrete schedule, or None for flow matching.
        shift: Time shift of flow sampling, s -> shift s / (1 + (shift - 1) s).
        first: The time that sampling starts at where it is not that of 50 DDIM steps, as for models that are sampled in
            a few steps and know no others, or no flow time of 1.
    """

    def __init__(self, alphas_cumprod: Tensor | None, *, shift: float = 1.0, first: float | None = None):
        self.alphas_cumprod = None if alphas_cumprod is None else alphas_cumprod.detach().double().cpu()
        self.shift, self.first = shift, first

    def timestep(self, t: float | Tensor) -> NoiseLevel:
        """Returns the level at the model's own time(s): integer timesteps, or flow times in [0, 1]."""
        time = torch.as_tensor(t).reshape(-1)
        if self.alphas_cumprod is None:
            s = time.double()
            if s.numel() and not (s.min() >= 0 and s.max() <= 1):
                raise InputError(f"flow times lie in [0, 1], not {t}")
            return NoiseLevel((1 - s).float(), s.float(), s.float())
        count = len(self.alphas_cumprod)
        if time.numel() and not (time.min() >= 0 and time.max() < count):
            raise InputError(f"timesteps lie in 0..{count - 1}, not {t}")
        abar = self.alphas_cumprod[time.long()]
        return NoiseLevel(abar.sqrt().float(), (1 - abar).sqrt().float(), time.long())

    def sampling(self, steps: int = 50) -> list[NoiseLevel]:
        """Returns the levels of a sampler with that many steps, noisiest first.

        Discrete: DDIM's "leading" timesteps plus one (981, 961, ..., 1 of 1,000 for 50), as in Stable Diffusion.
        Flow: shifted times from 1 down to the last before 0.
        """
        return [self.timestep(time) for time in self._times(steps)]

    def fraction(self, fraction: float) -> NoiseLevel:
        """Returns the level that far into the schedule: 0 is clean, 1 pure noise."""
        if not 0 <= fraction <= 1:
            raise InputError(f"a fraction of the schedule lies in [0, 1], not {fraction}")
        if self.alphas_cumprod is None:
            return self.timestep(fraction)
        return self.timestep(round(fraction * (len(self.alphas_cumprod) - 1)))

    @property
    def pure_noise(self) -> NoiseLevel:
        """The level at which sampling starts; x_T ~ N(0, I) there."""
        if self.first is not None:
            return self.timestep(self.first)
        steps = 50 if self.alphas_cumprod is None else min(50, len(self.alphas_cumprod))
        return self.timestep(self._times(steps)[0])

    def _times(self, steps: int) -> list[float]:
        if self.alphas_cumprod is None:
            if steps < 1:
                raise InputError(f"steps are at least 1, not {steps}")
            times = [1 - i / steps for i in range(steps)]
            # rounding may lead past 1
            return [min(1.0, self.shift * s / (1 + (self.shift - 1) * s)) for s in times]
        count = len(self.alphas_cumprod)
        if not 1 <= steps <= count:
            raise InputError(f"steps lie in 1..{count}, not {steps}")
        stride = count // steps
        return [min(i * stride + 1, count - 1) for i in reversed(range(steps))]
