"""Statistics of membership: closed forms, slow references of each baseline, direction and rows."""

from typing import Any

import pytest
import torch

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.signals.membership import sima, sima_mc, sima_relative
from cryptomnesia.signals.membership_baselines import CROPS, loss, pfami, pia, secmi, secmi_rows
from cryptomnesia.signals.membership_methods import METHODS, method_named

from ..helpers import gaussian, toy

SHAPE = (2, 4, 4)
MEAN = torch.linspace(-1, 1, 32, dtype=torch.float64).view(SHAPE)
KINDS = ("epsilon", "v", "sample", "flow")


def latents(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def exact(kind: str) -> CallableDenoiser:
    """The exact denoiser of Gaussian data around MEAN."""
    return CallableDenoiser(
        lambda x, t, c: gaussian.output(x, t, kind, MEAN).to(x.dtype),
        None if kind == "flow" else gaussian.ABAR,
        kind,  # type: ignore[arg-type]
        empty=torch.zeros(1, 1, 1),
        latent_shape=SHAPE,
    )


def times(kind: str) -> list[float]:
    return [0.1, 0.4] if kind == "flow" else [40, 300]


def level(kind: str, t: float) -> tuple[float, float]:
    alpha, sigma = gaussian.levels(torch.tensor([t]), kind)
    return float(alpha), float(sigma)


@pytest.mark.parametrize("kind", KINDS)
def test_sima_on_gaussian_data(kind):
    """noise(x, t) = sigma (x - alpha mean) / (alpha^2 s^2 + sigma^2), at x = x0."""
    z = latents(3)
    wanted = []
    for t in times(kind):
        alpha, sigma = level(kind, t)
        noise = sigma * (z.double() - alpha * MEAN) / (alpha**2 * gaussian.STD**2 + sigma**2)
        wanted.append(noise.pow(4).sum((1, 2, 3)))
    found = sima(exact(kind), z, times(kind))
    assert found.dtype == torch.float32 and found.shape == (2, 3)
    torch.testing.assert_close(found.double(), torch.stack(wanted), rtol=2e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draws", [2, 6])
def test_sima_mc_on_gaussian_data(kind, draws):
    """Draws of opposite sign cancel for a linear denoiser: the mean answer is that at alpha x0."""
    z = latents(3)
    wanted = []
    for t in times(kind):
        alpha, sigma = level(kind, t)
        noise = sigma * alpha * (z.double() - MEAN) / (alpha**2 * gaussian.STD**2 + sigma**2)
        wanted.append(noise.pow(4).sum((1, 2, 3)))
    found = sima_mc(exact(kind), z, times(kind), draws=draws, seed=draws)
    torch.testing.assert_close(found.double(), torch.stack(wanted), rtol=2e-3, atol=1e-5)


def test_sima_mc_with_given_noise_and_mean_of_statistics():
    denoiser, z = toy.linear(), latents(2, toy.SHAPE)
    noise = latents(3, toy.SHAPE, seed=9)
    alpha, sigma = (float(v) for v in (denoiser.level(200).alpha, denoiser.level(200).sigma))
    answers = torch.stack(
        [denoiser.predict(alpha * z + sigma * e, denoiser.level(200), denoiser.empty).noise for e in noise]
    )
    wanted = answers.double().mean(0).pow(4).sum((1, 2, 3)).float()
    torch.testing.assert_close(sima_mc(denoiser, z, [200], noise=noise)[0], wanted, rtol=1e-4, atol=0)
    wanted = answers.double().pow(4).sum((2, 3, 4)).mean(0).float()
    found = sima_mc(denoiser, z, [200], noise=noise, average="statistics")[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


def test_sima_relative_takes_half_of_the_empty_answer_out():
    denoiser, z, conditions = toy.linear(), latents(2, toy.SHAPE), toy.prompts(2)
    own, empty = (sima_mc(denoiser, z, [20, 300], c, draws=4, seed=1) for c in (conditions, None))
    found = sima_relative(denoiser, z, [20, 300], conditions, draws=8, seed=1)
    torch.testing.assert_close(found.log(), own.log() - empty.log() / 2, rtol=1e-4, atol=1e-4)


def test_author_compat_on_the_built_in_model():
    """The authors' loop: one call per timestep on the same latents, fourth power, sum."""
    from cryptomnesia import load_demo
    from cryptomnesia.adapters import to_denoiser

    pipe = load_demo()
    denoiser: Any = to_denoiser(pipe)
    z = latents(2, (4, 16, 16))
    steps = [0, 90, 190]
    with torch.no_grad():
        text = pipe.encode_prompt(["monkey face on blue"] * 2, "cpu", 1, False)[0]
        outputs = torch.stack([pipe.unet(z, t, encoder_hidden_states=text).sample for t in steps])
    wanted = (outputs**4).flatten(2).sum(-1)
    condition = denoiser.encode(["monkey face on blue"])
    torch.testing.assert_close(sima(denoiser, z, steps, condition, author_compat=True), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(sima(denoiser, z, steps, condition), wanted, rtol=1e-5, atol=0)


def test_author_compat_takes_the_raw_output():
    denoiser, z = exact("v"), latents(2)
    wanted = gaussian.output(z, torch.tensor([40, 40]), "v", MEAN).pow(4).sum((1, 2, 3))
    torch.testing.assert_close(sima(denoiser, z, [40], author_compat=True)[0].double(), wanted, rtol=1e-4, atol=0)
    assert not torch.allclose(sima(denoiser, z, [40]), sima(denoiser, z, [40], author_compat=True), rtol=1e-2)


def one_noise(denoiser, z, t, condition):
    return denoiser.predict(z[None], denoiser.level(t), condition).noise[0].double()


def mix(denoiser, z, t, e):
    here = denoiser.level(t)
    return float(here.alpha) * z + float(here.sigma) * e


def slow_loss(denoiser, z, t, condition, draws):
    noise = torch.randn(draws, *z.shape, generator=torch.Generator().manual_seed(5))
    errors = [(one_noise(denoiser, mix(denoiser, z, t, e), t, condition) - e.double()).square().sum() for e in noise]
    return sum(errors) / draws


def slow_pia(denoiser, z, t, condition, draws):
    first = one_noise(denoiser, z, 0, condition).float()
    return (first.double() - one_noise(denoiser, mix(denoiser, z, t, first), t, condition)).pow(4).sum()


def slow_secmi(denoiser, z, t, condition, draws):
    def step(x, noise, here, there):
        a, s, b, r = (float(v) for v in (*pair(here), *pair(there)))
        return b * (x - s * noise) / a + r * noise

    def pair(u):
        return denoiser.level(u).alpha, denoiser.level(u).sigma

    x, here = z.double(), 0
    while here < t:
        there = min(here + 10, t)
        x, here = step(x, one_noise(denoiser, x.float(), here, condition), here, there), there
    up = step(x, one_noise(denoiser, x.float(), t, condition), t, t + 10)
    back = step(up, one_noise(denoiser, up.float(), t + 10, condition), t + 10, t)
    return (back - x).square().sum()


def slow_pfami(denoiser, z, t, condition, draws):
    own, found = slow_loss(denoiser, z, t, condition, draws), []
    for share in CROPS:
        side = int(z.shape[-1] * share)
        edge = (z.shape[-1] - side) // 2
        centre = z[None, :, edge : edge + side, edge : edge + side]
        crop = torch.nn.functional.interpolate(centre, z.shape[-2:], mode="bilinear", align_corners=False)[0]
        found.append(slow_loss(denoiser, crop, t, condition, draws))
    return 1 - sum(found) / len(found) / own


SLOW = {"loss": slow_loss, "secmi": slow_secmi, "pia": slow_pia, "pfami": slow_pfami}


@pytest.mark.parametrize("name", SLOW)
def test_baselines_against_slow_references(name):
    denoiser, z, conditions = toy.linear(), latents(2, toy.SHAPE), toy.prompts(2)
    steps = [25, 60]
    found = METHODS[name](denoiser, z, steps, conditions, draws=3, seed=5)
    assert found.dtype == torch.float32
    for i, t in enumerate(steps):
        for j in range(2):
            wanted = SLOW[name](denoiser, z[j], t, conditions[j : j + 1], 3)
            assert float(found[i, j]) == pytest.approx(float(wanted), rel=2e-3)


def test_secmi_of_flow_models_climbs_by_hundredths():
    denoiser, z = exact("flow"), latents(2)
    assert secmi_rows(denoiser, [0.05]) == 5 + 2
    assert secmi(denoiser, z, [0.05]).shape == (1, 2)


class Memory(CallableDenoiser):
    """The exact denoiser of a handful of images: it points to the mean of them, weighted by how near they are."""

    def __init__(self, images: torch.Tensor):
        self.rows = 0

        def fn(x, t, condition):
            self.rows += len(x)
            alpha, sigma = gaussian.levels(t, "epsilon")
            spread = sigma.flatten()[:, None].square() + 0.02
            apart = (x.double()[:, None] - alpha[:, None] * images.double()).square().sum((2, 3, 4))
            weight = torch.softmax(-apart / (2 * spread), 1)
            x0 = torch.einsum("bn,nchw->bchw", weight, images.double())
            return ((x.double() - alpha * x0) / sigma).to(x.dtype)

        super().__init__(fn, gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE, fingerprint="memory")


# SecMI's error of a step is exactly zero where a denoiser is linear, as this one is near each image: no direction
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"secmi"}))
def test_smaller_is_more_member_like(name):
    from cryptomnesia.two_samples import auc

    members = latents(12)
    denoiser = Memory(members)
    others = members + 0.3 * latents(12, seed=8)
    found = METHODS[name](denoiser, torch.cat([members, others]), [100], denoiser.empty, 4, 0)[0].double().numpy()
    assert auc(found[:12], found[12:]) > 0.9


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", [[40], [20, 60, 65]])
def test_rows_are_as_stated(name, steps):
    denoiser = Memory(latents(3))
    METHODS[name](denoiser, latents(2), steps, denoiser.empty, 4, 0)
    assert denoiser.rows == 2 * METHODS[name].rows(denoiser, steps, 4)


@pytest.mark.parametrize("ask", [sima, sima_mc])
def test_numbers_do_not_hang_on_batches(ask):
    denoiser, z, conditions = toy.linear(), latents(5, toy.SHAPE), toy.prompts(5)
    seen = []
    whole = ask(denoiser, z, [20, 400], conditions)
    parts = ask(denoiser, z, [20, 400], conditions, batch_rows=3, progress=lambda done, _: seen.append(done))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=0)
    assert seen == sorted(seen) and seen[-1] == 2 * 5 * (1 if ask is sima else 8)
    alone = ask(denoiser, z[3:4], [20, 400], conditions[3:4])
    torch.testing.assert_close(alone, whole[:, 3:4], rtol=1e-4, atol=0)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    sima_mc(toy.linear(), latents(1, toy.SHAPE), [20])
    loss(toy.linear(), latents(1, toy.SHAPE), [20])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda d, z: sima(d, z[0], [20]), "latents are"),
        (lambda d, z: sima(d, z[:, :1], [20]), "have 3 channels"),
        (lambda d, z: sima(d, z * float("nan"), [20]), "NaN"),
        (lambda d, z: sima(d, z, []), "no timestep"),
        (lambda d, z: sima(d, z, [1000]), "timesteps lie in"),
        (lambda d, z: sima(d, z, [20], toy.prompts(3)), "3 conditions do not fit 2 images"),
        (lambda d, z: sima_mc(d, z, [20], draws=0), "at least 1"),
        (lambda d, z: sima_mc(d, z, [20], average="medians"), "unknown average"),  # type: ignore[arg-type]
        (lambda d, z: sima_mc(d, z, [20], noise=torch.zeros(2, 3, 5, 5)), "noise for these latents"),
        (lambda d, z: sima_relative(d, z, [20], None), "give prompts, or use sima_mc"),
        (lambda d, z: sima_relative(d, z, [20], toy.prompts(2), draws=3), "even number of noise draws, not 3"),
        (lambda d, z: loss(d, z, [20], draws=0), "at least 1"),
        (lambda d, z: pfami(d, z, [20], draws=-1), "at least 1"),
        (lambda d, z: secmi(d, z, [995]), "needs a step above"),
        (lambda d, z: pia(d, z, [-1]), "timesteps lie in"),
        (lambda d, z: method_named("magic"), "unknown method 'magic'"),
    ],
)
def test_bad_input(ask, words):
    with pytest.raises(InputError, match=words):
        ask(toy.linear(), latents(2, toy.SHAPE))


def test_a_model_that_overflows_is_named():
    denoiser = CallableDenoiser(
        lambda x, t, c: x / 0, toy.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE, fingerprint="broken"
    )
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        sima(denoiser, latents(1), [20])
