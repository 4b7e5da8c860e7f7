"""How a denoiser is measured for a test of membership, and at which noise by default."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..denoiser import Denoiser
from ..errors import InputError
from ..signals.gradient_norms import PAIR
from ..signals.membership_methods import method_named

METHOD, METHOD_WITH_PROMPTS, DRAWS = "sima_mc", "sima_relative", 8
Features = Literal["statistic", "gradients"]
FEATURES: tuple[Features, ...] = ("statistic", "gradients")
NOISE_TO_SIGNAL = 0.43
"""Where images are noised to: sigma / alpha, timestep 140 of Stable Diffusion; chosen by `benchmarks.membership`.
Rectified flow is asked at the same, s = 0.30: half way, where Rao & Moyer 2026 (arXiv 2603.13421) see most, it betrays
less in `benchmarks.membership_flow`."""
NOT_DIVIDED = ("sima_relative", "pfami")  # already fractions, in which complexity cancels out


@dataclass(frozen=True)
class Settings:
    """How the denoiser is measured.

    Attributes:
        method: One of `METHODS`; None for "sima_relative" where there are prompts and "sima_mc" where there are none.
        timesteps: The model's own times; None for `default_timestep`.
        draws: Number of noised copies of each image, where the method has any.
        seed: Seed of the noise.
        features: "statistic" for the method's alone; "gradients" for the norm of each layer's gradient, too, from which
            together a statistic is learned: four times the work, and more memory.
        by_complexity: Whether the statistic is divided by the image's compressed size; not for fractions.
    """

    method: str | None = None
    timesteps: tuple[float, ...] | None = None
    draws: int = DRAWS
    seed: int = 0
    features: Features = "statistic"
    by_complexity: bool = False

    def complete(self, denoiser: Denoiser, prompted: bool) -> "Settings":
        """Returns the settings with a method and with timesteps of this model. Raises InputError for unknown ones."""
        self.check()
        times = (default_timestep(denoiser),) if self.timesteps is None else self.timesteps
        denoiser.level(torch.as_tensor(times))
        method = self.method or (METHOD_WITH_PROMPTS if prompted else METHOD)
        complete = replace(self, method=method, timesteps=tuple(times))
        complete.check()
        return complete

    def check(self) -> None:
        """Raises InputError for unknown names or no draw; timesteps are checked with the model, in `complete`."""
        if self.method is not None:
            method_named(self.method)
        if self.draws < 1:
            raise InputError(f"the number of noise draws is at least 1, not {self.draws}")
        if self.features not in FEATURES:
            raise InputError(f"unknown features {self.features!r} of membership: use {' or '.join(FEATURES)}")
        if self.features == "gradients" and self.draws % PAIR:
            raise InputError(f"gradients need an even number of noise draws, not {self.draws}")
        if self.by_complexity and self.method in NOT_DIVIDED:
            raise InputError(f"{self.method} is a fraction already: do not divide it by the complexity of images")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "method": self.method,
            "timesteps": list(self.timesteps or ()),
            "draws": self.draws,
            "seed": str(self.seed),
            **({} if self.features == "statistic" else {"features": self.features}),
            **({"by_complexity": True} if self.by_complexity else {}),
        }

    def rows(self, denoiser: Denoiser) -> int:
        """Returns the rows of the network per image of complete settings; one forth and back counts as three."""
        times = self.timesteps or ()
        rows = method_named(self.method or METHOD).rows(denoiser, times, self.draws)
        return rows if self.features == "statistic" else rows + 3 * len(times) * self.draws


def default_timestep(denoiser: Denoiser) -> float:
    """Returns the model's own time whose sigma / alpha is closest to NOISE_TO_SIGNAL."""
    alphas = denoiser.levels.alphas_cumprod
    if alphas is None:
        return NOISE_TO_SIGNAL / (1 + NOISE_TO_SIGNAL)
    return int(((1 - alphas) / alphas).sqrt().sub(NOISE_TO_SIGNAL).abs().argmin())
