"""What a model finds again whatever the noise, on Gaussians where it is known, and outlines that are."""

import pytest
import torch
from torch import Tensor

from cryptomnesia import CallableDenoiser
from cryptomnesia.condition import Condition
from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.localization.agreement import (
    DRAWS,
    agreement,
    among_seeds,
    likelihood,
    matched_draws,
    noisy_level,
)
from cryptomnesia.localization.outline import outline

SHAPE = (2, 6, 6)
SPREADS = torch.ones(SHAPE)
SPREADS[:, :, :3] = 1e-3  # the left half of what the prompt asks for is always the same


def gaussian(mean: Tensor, deviation: Tensor, alphas: Tensor, unusual: float = 1.0) -> CallableDenoiser:
    """A model whose latents are normal: given the prompt with these, and without with mean 0 and deviation 1."""

    def noise(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
        prompted = condition.flatten(1).any(1).view(-1, 1, 1, 1)
        own, wide = torch.where(prompted, mean, 0.0), torch.where(prompted, deviation, torch.tensor(unusual))
        return sigma * (x - alpha * own) / (alpha**2 * wide**2 + sigma**2)

    return CallableDenoiser(noise, alphas, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE)


ALPHAS = torch.linspace(0.9999, 0.0047, 1000)
PROMPT = Condition(text=torch.ones(1, 1, 1))


def test_matched_draws_have_mean_0_and_variance_1_at_every_element():
    noise = matched_draws(SHAPE, 3)
    assert noise.shape == (DRAWS, *SHAPE)
    torch.testing.assert_close(noise.mean(0), torch.zeros(SHAPE), rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.square().mean(0), torch.ones(SHAPE))
    assert torch.equal(noise, matched_draws(SHAPE, 3)) and not torch.equal(noise, matched_draws(SHAPE, 4))


def test_spread_and_error_are_those_of_the_gaussian():
    """Guess = mean + gain (x0 - mean + sigma / alpha noise): its spread over matched draws is gain sigma / alpha."""
    latent = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    model = gaussian(latent[0], SPREADS, ALPHAS)
    level = noisy_level(model)
    ratio = (level.sigma / level.alpha).item()
    assert ratio == pytest.approx(8.4, rel=0.05)
    found = agreement(model, latent, PROMPT)
    gain = SPREADS[0] ** 2 / (SPREADS[0] ** 2 + ratio**2)
    usual = 1 / (1 + ratio**2) * ratio
    expected = gain * ratio
    # away from the seam, where smoothing mixes nothing
    for column in (0, 5):
        torch.testing.assert_close(found.spread[:, column], expected[:, column] / usual, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.error[:, column], expected[:, column], rtol=1e-3, atol=1e-3)
    assert found.forward_rows == 2 * DRAWS and agreement(model, latent, PROMPT).forward_rows == DRAWS


def test_the_likelihood_falls_with_spread_error_and_distance_and_rises_with_the_map():
    latent = torch.zeros(1, *SHAPE)
    found = agreement(gaussian(latent[0], SPREADS, ALPHAS), latent, PROMPT)
    even = torch.ones(6, 6)
    odds = likelihood(even, found)
    assert odds[0, 0] > odds[0, 5]
    half = even.clone()
    half[:3] = 0.1
    assert (likelihood(half, found)[:3] < odds[:3]).all() and torch.equal(likelihood(half, found)[3:], odds[3:])
    assert torch.allclose(likelihood(7 * half, found), likelihood(half, found))  # a map knows no units
    others = torch.zeros(3, *SHAPE)
    others[:, :, :3] = 2
    assert torch.allclose(among_seeds(latent, others)[0], torch.tensor(2.0), atol=0.2)
    told = likelihood(even, found, latent, others)
    assert (told[0] < told[5]).all()


def test_a_model_that_answers_with_nan_is_told():
    model = CallableDenoiser(lambda x, t, c: x * float("nan"), ALPHAS, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE)
    with pytest.raises(NonFiniteError):
        agreement(model, torch.zeros(1, *SHAPE), PROMPT)


def test_an_outline_follows_the_picture_and_mends_single_places():
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, :, 30:] = 1.0
    odds = torch.full((1, 16, 16), -1.0)
    odds[:, :, :7] = 1.0  # ends two pixels short of the edge
    odds[:, 5, 3], odds[:, 9, 12] = -1.0, 1.0
    found = outline(odds, picture)
    assert found.shape == (1, 64, 64) and found.dtype == torch.bool
    assert found[:, :, :29].all() and not found[:, :, 31:].any()


@pytest.mark.parametrize("value", [True, False])
def test_what_is_sure_everywhere_stays_so_whatever_the_picture(value):
    picture = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    found = outline(torch.full((2, 8, 10), 3.0 if value else -3.0), picture)
    assert found.all() if value else not found.any()


def test_shapes_that_do_not_fit_are_refused():
    for odds, picture in (
        (torch.zeros(8, 8), torch.zeros(1, 3, 32, 32)),
        (torch.zeros(1, 8, 8), torch.zeros(1, 3, 4, 4)),
    ):
        with pytest.raises(InputError):
            outline(odds, picture)
