"""The statistics of membership by name, all called in one way: (T, B) float32, smaller = more member-like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoiser import Condition, Denoiser
from ..errors import InputError
from .membership import sima, sima_mc, sima_relative
from .membership_baselines import CROPS, loss, pfami, pia, secmi, secmi_rows

Times = Sequence[float] | Tensor
Ask = Callable[[Denoiser, Tensor, Times, Condition | Tensor | None, int, int], Tensor]


@dataclass(frozen=True)
class Method:
    """One statistic.

    Attributes:
        ask: ask(denoiser, latents (B, C, H, W), timesteps, condition, draws, seed) -> (T, B) float32; smaller = more
            member-like. Methods without draws take no notice of draws and seed.
        rows: rows(denoiser, timesteps, draws) -> rows of the network per image.
        positive: Whether it is a sum of powers, to be compared on a log scale.
    """

    ask: Ask
    rows: Callable[[Denoiser, Times, int], int]
    positive: bool = True

    def __call__(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        timesteps: Times,
        condition: Condition | Tensor | None = None,
        draws: int = 8,
        seed: int = 0,
    ) -> Tensor:
        """Returns the statistic, (T, B) float32; raises what `sima` raises."""
        return self.ask(denoiser, latents, timesteps, condition, draws, seed)


METHODS: dict[str, Method] = {
    "sima": Method(lambda d, z, t, c, draws, seed: sima(d, z, t, c), lambda d, t, draws: len(t)),
    "sima_mc": Method(
        lambda d, z, t, c, draws, seed: sima_mc(d, z, t, c, draws=draws, seed=seed), lambda d, t, draws: len(t) * draws
    ),
    "sima_relative": Method(
        lambda d, z, t, c, draws, seed: sima_relative(d, z, t, c, draws=draws, seed=seed),
        lambda d, t, draws: len(t) * draws,
    ),
    "loss": Method(
        lambda d, z, t, c, draws, seed: loss(d, z, t, c, draws=draws, seed=seed), lambda d, t, draws: len(t) * draws
    ),
    "secmi": Method(lambda d, z, t, c, draws, seed: secmi(d, z, t, c), lambda d, t, draws: secmi_rows(d, t)),
    "pia": Method(lambda d, z, t, c, draws, seed: pia(d, z, t, c), lambda d, t, draws: len(t) + 1),
    "pfami": Method(
        lambda d, z, t, c, draws, seed: pfami(d, z, t, c, draws=draws, seed=seed),
        lambda d, t, draws: len(t) * draws * (1 + len(CROPS)),
        positive=False,
    ),
}
"""SimA, its variants, and what they are compared with. All but "sima_relative" can do without prompts."""


def method_named(name: str) -> Method:
    """Returns the method of that name. Raises InputError for an unknown one."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r} of membership: use one of {', '.join(METHODS)}")
    return METHODS[name]
