"""What each family's network is fed and answers with, written down without looking at the adapter: predictions are
exact for data whose exact denoiser is known, and ComfyUI's own samplers draw that data with it."""

from typing import Any

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.denoiser import Condition, NoiseLevel
from cryptomnesia.signals.memorization import memorization_score

from . import models
from .graphs import Texts

pytestmark = pytest.mark.usefixtures("comfy")
SPREAD = 0.3  # of the data; its mean is what the prompt says
# what flow networks are told at pure noise
FLOWS = {
    **dict.fromkeys(("sd3", "wan", "hunyuan", "hunyuan-distilled", "hidream"), 1000.0),
    **dict.fromkeys(("flux", "flux2", "klein", "chroma", "qwen", "schnell", "lumina", "z-image", "aura"), 1.0),
}
BETAS = {
    **dict.fromkeys(("eps", "v", "sdxl"), torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2),
    "pixart": torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64),
}
EDM = 0.5  # the spread of the data that such networks are scaled for
KINDS = sorted({*FLOWS, *BETAS, "edm"})


def wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.float().view(-1, *[1] * (like.ndim - 1))


def mean_of(text: torch.Tensor) -> torch.Tensor:
    return text.sum((1, 2)) / 16


def clean(x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The mean of all data that x = alpha x0 + sigma noise may have been."""
    alpha, sigma, mean = (wide(value, x) for value in (alpha, sigma, mean))
    return mean + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (x - alpha * mean)


def network(kind: str) -> Any:
    def forward(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor, **_: Any) -> torch.Tensor:
        mean, time = mean_of(context), time.expand(len(x))
        if kind in FLOWS:
            s = time / FLOWS[kind]
            return (x - clean(x, 1 - s, s, mean)) / wide(s, x)
        if kind == "edm":
            ratio = (4 * time).exp()
            noisy = x * wide((ratio**2 + EDM**2).sqrt(), x)
            x0 = clean(noisy, torch.ones_like(ratio), ratio, mean)
            kept = EDM**2 / (ratio**2 + EDM**2)
            return (x0 - wide(kept, x) * noisy) / wide(ratio * EDM / (ratio**2 + EDM**2).sqrt(), x)
        abar = (1 - BETAS[kind]).cumprod(0)[time.long()]
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        x0 = clean(x, alpha, sigma, mean)
        noise = (x - wide(alpha, x) * x0) / wide(sigma, x)
        return wide(alpha, x) * noise - wide(sigma, x) * x0 if kind == "v" else noise

    return forward


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest) -> ComfyDenoiser:
    """A model of each kind, whose network knows its data."""
    kind = request.param
    model = models.model(kind)
    model.model.diffusion_model.forward = network(kind)
    return ComfyDenoiser(model, Texts(kind))


def kind_of(made: ComfyDenoiser) -> str:
    return made.clip.kind


def latents(kind: str, rows: int) -> torch.Tensor:
    shape = models.KINDS[kind].channels, models.KINDS[kind].size, models.KINDS[kind].size
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(3))


def test_every_kind_is_here():
    assert set(KINDS) == set(models.KINDS) - {"zsnr"}  # whose levels are another test's


def test_predictions_are_exact(made: ComfyDenoiser):
    kind, steps = kind_of(made), made.levels.sampling(50)
    level = NoiseLevel.cat([steps[0], steps[25], steps[48]])
    given = [models.conditioning(kind, number) for number in (1, 2, 3)]
    mean = torch.cat([mean_of(text) for ((text, _),) in given])
    x = wide(level.alpha, torch.zeros(3, 1, 1, 1)) * (0.2 + SPREAD * latents(kind, 3))
    x = x + wide(level.sigma, x) * latents(kind, 3).flip(0)
    found = made.predict(x, level, Condition.cat([made.read(one) for one in given]))
    expected = clean(x, level.alpha, level.sigma, mean)
    torch.testing.assert_close(found.x0, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    assert mean.max() - mean.min() > 0.1


def test_the_score_is_how_far_two_means_lie_apart(made: ComfyDenoiser):
    given = models.conditioning(kind_of(made), 1)
    x, level = latents(kind_of(made), 2), made.levels.pure_noise
    measured = memorization_score(made, made.read(given), noise=x, alignment=False)
    ((empty, _),) = made.conditioning("")
    apart = float((mean_of(given[0][0]) - mean_of(empty)).abs())
    spread = float(level.alpha**2 * SPREAD**2 / (level.alpha**2 * SPREAD**2 + level.sigma**2))
    # velocities differ by what the clean latents do, noises by that times alpha / sigma
    scale = 1.0 if made.prediction_type == "flow" else float(level.alpha / level.sigma)
    assert made.prediction_type == "flow" or spread < 0.01
    expected = apart * (1 - spread) * scale * x[0].numel() ** 0.5
    assert float(measured.iso) == pytest.approx(expected, rel=2e-2) and expected > 0.01


def test_comfyui_samples_that_data(made: ComfyDenoiser):
    """With wrong signs or times none would come out."""
    import comfy.sample

    kind, model = kind_of(made), made.model
    given = models.conditioning(kind, 1)
    noise = latents(kind, 2)
    frames = model.model.latent_format.latent_dimensions == 3
    noise = noise.unsqueeze(2) if frames else noise
    with torch.inference_mode():
        found = comfy.sample.sample(
            model, noise, 40, 1.0, "heun", "normal", given, given, torch.zeros_like(noise), seed=1, disable_pbar=True
        )
        data = model.model.process_latent_in(found)
    assert float(data.mean()) == pytest.approx(float(mean_of(given[0][0])), abs=0.05)
    assert float(data.std()) == pytest.approx(SPREAD, rel=0.15)
