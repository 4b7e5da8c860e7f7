import pytest
import torch

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError, NonFiniteError, NotApplicable
from cryptomnesia.signals.baselines import sharpness, wen_norm
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.memorization import memorization_score

from ..helpers.toy import ABAR, SHAPE, linear, prompts, without_guidance


def authors(denoiser, condition, noise, weights, raw):
    """The authors' procedure, one prompt, one draw and one branch at a time."""
    values = []
    for c in condition:
        per_draw = []
        for x in noise:
            out = {}
            for t in (981, 41):
                for name, text in (("c", c[None]), ("e", denoiser.empty)):
                    p = denoiser.predict(x[None], denoiser.level(t), text)
                    out[name, t] = (p.raw if raw else p.noise)[0]
            iso = (out["c", 981] - out["e", 981]).norm()
            low = out["c", 41] - out["e", 41]
            cosine = (low * out["e", 41]).sum(0) / (low.norm(dim=0) * out["e", 41].norm(dim=0))
            per_draw.append(torch.stack([iso, cosine.mean(), weights[0] * iso + weights[1] * cosine.mean()]))
        values.append(torch.stack(per_draw).mean(0))
    return torch.stack(values).T


@pytest.mark.parametrize(("kind", "weights"), [("epsilon", (1.0, 2.0)), ("v", (1.0, 0.1))])
def test_equals_the_authors_procedure(kind, weights):
    base = linear()
    denoiser = CallableDenoiser(base.fn, ABAR, kind, empty=torch.zeros(1, 2, 5), latent_shape=SHAPE)
    condition, noise = prompts(5), torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(3))
    iso, aniso, score = authors(denoiser, condition, noise, weights, raw=True)
    result = memorization_score(denoiser, condition, noise=noise, author_compat=True)
    torch.testing.assert_close(result.iso, iso, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(result.aniso, aniso, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(result.score, score, atol=1e-4, rtol=1e-5)


def test_default_measures_noise_whatever_the_network_puts_out():
    base, condition = linear(), prompts(3)
    level_of = base.levels.timestep

    def as_v(x, t, c):
        level = level_of(t)
        alpha, sigma = level.alpha.view(-1, 1, 1, 1), level.sigma.view(-1, 1, 1, 1)
        return (base.fn(x, t, c) - sigma * x) / alpha

    v = CallableDenoiser(as_v, ABAR, "v", empty=torch.zeros(1, 2, 5), latent_shape=SHAPE)
    ours, theirs = memorization_score(base, condition), memorization_score(v, condition)
    torch.testing.assert_close(ours.iso, theirs.iso, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ours.aniso, theirs.aniso, atol=1e-3, rtol=1e-4)


def test_known_guidance():
    denoiser, condition = linear(), prompts(4)
    result = memorization_score(denoiser, condition, draws=2)
    x = torch.zeros(1, *SHAPE)
    expected = torch.stack([denoiser.predict(x, denoiser.level(981), c[None]).noise.norm() for c in condition])
    torch.testing.assert_close(result.iso, expected)
    # the guidance of this model does not depend on the noise, so the draws agree entirely
    torch.testing.assert_close(result.spectrum.sum(1).sqrt(), expected)


@pytest.mark.parametrize("private", [False, True])
def test_batching_changes_nothing_and_costs_one_call(private):
    calls = []
    base, condition = linear(), prompts(7)

    def counting(x, t, c):
        calls.append(len(x))
        return base.fn(x, t, c)

    denoiser = CallableDenoiser(counting, ABAR, empty=torch.zeros(1, 2, 5), latent_shape=SHAPE)
    noise = torch.randn(*((7,) if private else ()), 2, *SHAPE, generator=torch.Generator().manual_seed(3))
    whole = memorization_score(denoiser, condition, noise=noise)
    assert calls == [7 * 8 if private else 7 * 4 + 4]
    assert whole.forward_rows == calls[0]
    parts = memorization_score(denoiser, condition, noise=noise, batch_rows=8)
    for name in ("score", "iso", "aniso", "aniso_flat", "spectrum"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=1e-5)
    alone = memorization_score(denoiser, condition[3:4], noise=noise[3] if private else noise)
    torch.testing.assert_close(alone.score, whole.score[3:4], atol=1e-5, rtol=1e-5)
    assert calls[-1] == 4 * 2


def test_seed_is_private_and_reproducible():
    denoiser, condition = linear(), prompts(2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = memorization_score(denoiser, condition, seed=9)
    assert torch.equal(torch.get_rng_state(), before)
    again = memorization_score(denoiser, condition, noise=draw_noise(denoiser, 4, 9))
    assert torch.equal(first.score, again.score)
    assert first.score.dtype == torch.float32 and first.score.shape == (2,)


def test_sharpness_is_the_jacobian_along_the_guidance():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(48, 48, generator=generator) / 7

    def fn(x, t, c):
        # guidance = (c - 0) * M x: its Jacobian is c * M, so H g = c^2 M M x
        return c.mean((1, 2))[:, None, None, None] * (x.flatten(1) @ matrix).view_as(x)

    denoiser = CallableDenoiser(fn, ABAR, empty=torch.zeros(1, 2, 5), latent_shape=SHAPE)
    condition, noise = prompts(3), torch.randn(2, *SHAPE, generator=generator)
    strength = condition.mean((1, 2))
    moved = noise.flatten(1) @ matrix @ matrix
    expected = strength**4 * moved.square().sum(-1).mean()
    found = sharpness(denoiser, condition, noise=noise, batch_rows=4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_wen_is_the_norm():
    denoiser, condition = linear(), prompts(3)
    assert torch.equal(wen_norm(denoiser, condition, seed=2), memorization_score(denoiser, condition, seed=2).iso)


def test_bad_input():
    denoiser, condition = linear(), prompts(2)
    with pytest.raises(InputError, match="at least one noise draw"):
        memorization_score(denoiser, condition, draws=0)
    with pytest.raises(InputError, match="no rows"):
        memorization_score(denoiser, condition[:0])
    with pytest.raises(InputError, match="noise has shape"):
        memorization_score(denoiser, condition, noise=torch.zeros(3, 1, *SHAPE))
    broken = CallableDenoiser(
        lambda x, t, c: x * torch.nan, ABAR, empty=torch.zeros(1, 2, 5), latent_shape=SHAPE, fingerprint="x"
    )
    with pytest.raises(NonFiniteError, match="NaN"):
        memorization_score(broken, condition)
    with pytest.raises(NotApplicable, match="starts from an image"):
        memorization_score(without_guidance(denoiser), condition)


def test_flow_models_have_guidance_where_there_is_nothing_but_noise():
    def fn(x, t, condition):
        return x * t.view(-1, 1, 1, 1) + condition.mean((1, 2)).view(-1, 1, 1, 1)

    flow = CallableDenoiser(fn, None, "flow", empty=torch.zeros(1, 2, 5), latent_shape=SHAPE)
    found = memorization_score(flow, torch.full((1, 2, 5), 2.0))
    assert found.iso.item() == pytest.approx(2 * 48**0.5)
    assert found.spectrum.sum().item() == pytest.approx(4 * 48)
