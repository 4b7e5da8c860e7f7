"""How sure a model is of a finished image, place by place: does it find the same again, whatever the noise?

The finished latent is noised anew until hardly anything of it is left, with several draws, and the model guesses from
each, in one step and with the prompt, what the latent was. Where it has learned the image by heart the guesses agree
with each other (a small spread S) and with the latent (a small error R); elsewhere each draw calls up something else.
The draws have mean 0 and variance 1 at every single element of the latent, so that a few serve for many.

Spreads are in units of what the empty prompt has on this model, so that one rule serves all of them.
"""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from ..condition import Condition
from ..denoiser import Denoiser, NoiseLevel
from ..errors import NonFiniteError
from ..signals.batching import in_batches, rows_per_call
from ..signals.smoothing import smooth
from .location import peak_of

DRAWS = 8
RATIO = 8.4
"""sigma / alpha of the noised latent: timestep 901 of Stable Diffusion."""
SMOOTHING = 0.6  # latent pixels
FLOOR = 0.05
# weights of the logarithms, and a constant: of map, spread, error, and of the distance from other seeds
ALONE = (2.587, -4.165, -4.075), -0.524
WITH_SEEDS = (1.67, -2.24, -0.87, -3.73), -0.41
_usual: "weakref.WeakKeyDictionary[Denoiser, dict[tuple[str, tuple[int, ...]], float]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Agreement:
    """What guesses from several noises say of one latent.

    Attributes:
        spread: How far they are from each other, (h, w) float32, in units of the empty prompt's; small = memorized.
        error: How far they are from the latent, (h, w) float32, in units of the latent; small = memorized.
        forward_rows: Rows of the network that it took.
    """

    spread: Tensor
    error: Tensor
    forward_rows: int


@torch.no_grad()
def agreement(denoiser: Denoiser, latent: Tensor, condition: Condition, *, seed: int = 0) -> Agreement:
    """Measures the agreement of guesses for one finished latent.

    Args:
        denoiser: The model.
        latent: The finished latent, (1, C, h, w), as the model's sampler leaves it.
        condition: The prompt, one row.
        seed: The seed of the private noise.

    Returns:
        The agreement, on the CPU; 8 rows of the network, and once per model and size another 8 for the empty prompt.

    Raises:
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits on the device.
    """
    latent = latent.detach().to(denoiser.device, torch.float32)
    guesses = _guesses(denoiser, latent, condition, seed)
    usual, rows = _usual_spread(denoiser, tuple(latent.shape[1:]), seed)
    error = smooth((guesses - latent).square().mean((0, 1)).unsqueeze(0), SMOOTHING).clamp_min(0).sqrt()[0]
    return Agreement((_spread(guesses) / usual).cpu(), error.cpu(), DRAWS + rows)


def likelihood(
    curvature: Tensor, found: Agreement, latent: Tensor | None = None, others: Tensor | None = None
) -> Tensor:
    """Returns how likely each place is reproduced, as log odds (h, w) float32.

    The weights were learned on development captions of the built-in model: figures that return on changing backgrounds,
    whose masks are known, and whole images that return (`benchmarks.localization`).

    Args:
        curvature: The map of the image, (h, w), >= 0; in units of its own peak.
        found: The agreement of guesses.
        latent, others: The finished latent (1, C, h, w) and those of other seeds (N, C, h, w), where there are any.
    """
    peak = peak_of(curvature.unsqueeze(0))[0].clamp_min(1e-12)
    features = [curvature / peak, found.spread, found.error]
    weights, constant = ALONE
    if latent is not None and others is not None:
        features.append(among_seeds(latent, others))
        weights, constant = WITH_SEEDS
    terms = [weight * torch.log(one + FLOOR) for weight, one in zip(weights, features, strict=True)]
    return torch.stack(terms).sum(0) + constant


def among_seeds(latent: Tensor, others: Tensor) -> Tensor:
    """Returns how far a finished latent (1, C, h, w) is from those of other seeds (N, C, h, w), (h, w) float32."""
    apart = (others.float() - latent.float()).square().mean((0, 1)).unsqueeze(0)
    return smooth(apart, SMOOTHING).clamp_min(0).sqrt()[0].cpu()


def matched_draws(shape: tuple[int, ...], seed: int) -> Tensor:
    """Returns noise (8, *shape) float32 whose mean is 0 and whose variance is 1 over the draws at every element."""
    noise = torch.randn((DRAWS, *shape), generator=torch.Generator().manual_seed(seed))
    noise = noise - noise.mean(0)
    return noise / noise.square().mean(0).sqrt()


def noisy_level(denoiser: Denoiser) -> NoiseLevel:
    """Returns the level that latents are noised to, as near as the model's own times come to it."""
    alphas = denoiser.levels.alphas_cumprod
    if alphas is None:
        return denoiser.level(RATIO / (1 + RATIO))
    return denoiser.level(int(((1 - alphas) / alphas).sqrt().sub(RATIO).abs().argmin()))


def _guesses(denoiser: Denoiser, latent: Tensor, condition: Condition, seed: int) -> Tensor:
    """The latent as it is guessed from each draw, (8, C, h, w)."""
    level = noisy_level(denoiser).to(denoiser.device)
    noise = matched_draws(tuple(latent.shape[1:]), seed).to(denoiser.device)
    x = level.alpha.view(-1, 1, 1, 1) * latent + level.sigma.view(-1, 1, 1, 1) * noise

    def ask(rows: slice) -> Tensor:
        count = len(x[rows])
        return denoiser.predict(x[rows], level.expand(count), condition[[0] * count]).x0

    most = rows_per_call(denoiser, latent.shape[1:])
    guesses = torch.cat([answer for _, answer in in_batches(ask, DRAWS, most)])
    if not torch.isfinite(guesses).all():
        raise NonFiniteError(f"the model's guesses are NaN or infinite in {denoiser.dtype}: load it in float32")
    return guesses.float()


def _spread(guesses: Tensor) -> Tensor:
    return smooth(guesses.var(0, unbiased=False).mean(0, keepdim=True), SMOOTHING).clamp_min(0).sqrt()[0]


def _usual_spread(denoiser: Denoiser, shape: tuple[int, ...], seed: int) -> tuple[float, int]:
    """The mean spread of the empty prompt's guesses around nothing, and the rows that it took, if it was not known."""
    known, key = _usual.setdefault(denoiser, {}), (denoiser.fingerprint, shape)
    if key in known:
        return known[key], 0
    nothing = torch.zeros(1, *shape, device=denoiser.device)
    known.clear()  # of the model as it was
    known[key] = max(1e-6, _spread(_guesses(denoiser, nothing, denoiser.empty, seed)).mean().item())
    return known[key], DRAWS
