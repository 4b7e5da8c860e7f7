"""Curvature maps against models whose curvature is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from cryptomnesia.signals.curvature import ESTIMATORS, curvature_map, score_difference_map
from cryptomnesia.signals.smoothing import smooth

from ..helpers import gaussian, toy

SIZE = torch.Size(toy.SHAPE).numel()
EMPTY = torch.zeros(1, 2, 5)


def matrix(seed: int = 0) -> torch.Tensor:
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) / 10


def linear(most_rows: int = 10**6, broken: bool = False) -> CallableDenoiser:
    """noise(x, c) = mean(c) A x: the Jacobian against the empty prompt is mean(c) A."""

    def fn(x, t, condition):
        if len(x) > most_rows:
            raise torch.OutOfMemoryError("too many rows")
        found = (x.flatten(1) @ matrix().T * condition.mean((1, 2)).view(-1, 1)).view_as(x)
        return found / 0 if broken else found

    return CallableDenoiser(fn, toy.ABAR, empty=EMPTY, latent_shape=toy.SHAPE, fingerprint="linear")


def nonlinear() -> CallableDenoiser:
    """noise(x, c) = tanh(mean(c) x): a diagonal Jacobian, which one probe already knows."""

    def fn(x, t, condition):
        return torch.tanh(x * condition.mean((1, 2)).view(-1, 1, 1, 1))

    return CallableDenoiser(fn, toy.ABAR, empty=EMPTY, latent_shape=toy.SHAPE, fingerprint="nonlinear")


def latents(count: int = 2, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, *toy.SHAPE, generator=torch.Generator().manual_seed(seed))


def prompts(*strengths: float) -> torch.Tensor:
    return torch.tensor(strengths, dtype=torch.float32).view(-1, 1, 1).expand(-1, 2, 5).clone()


def known(denoiser: CallableDenoiser, strengths: tuple[float, ...]) -> torch.Tensor:
    """dh of `linear`, (B, H, W)."""
    diagonal = matrix().diagonal().view(toy.SHAPE).sum(0)
    return (torch.tensor(strengths).view(-1, 1, 1) * diagonal / denoiser.level(1).sigma).clamp_min(0)


# --- exact answers ---


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_linear_models_curvature_is_found(estimator):
    denoiser = linear()
    found = curvature_map(
        denoiser, latents(), denoiser.level(1), prompts(1.0, -2.0), estimator=estimator, probes=2000, smoothing=0
    )
    expected = known(denoiser, (1.0, -2.0))
    assert found.shape == (2, 4, 4) and found.dtype == torch.float32
    close = {"exact": 1e-4}.get(estimator, 0.15 * expected.max().item())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=close)


def test_forward_and_backward_see_the_same_probes_alike():
    denoiser, x = nonlinear(), latents()
    exact = curvature_map(denoiser, x, denoiser.level(500), prompts(1, 2), estimator="exact")
    for estimator in ("forward", "backward"):
        found = curvature_map(denoiser, x, denoiser.level(500), prompts(1, 2), estimator=estimator, probes=8)
        torch.testing.assert_close(found, exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("estimator", ["forward", "backward"])
def test_estimates_converge(estimator):
    denoiser, x = linear(), latents(1)

    def error(probes: int) -> float:
        options = {"estimator": estimator, "probes": probes, "smoothing": 0}
        seeds = [curvature_map(denoiser, x, denoiser.level(1), prompts(1), seed=s, **options) for s in range(20)]
        return (torch.stack(seeds) - known(denoiser, (1.0,))).square().mean().sqrt().item()

    assert error(64) < error(4) / 3  # four times less, up to chance


@pytest.mark.parametrize("kind", ["epsilon", "v", "sample", "flow"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gaussian_data_of_two_widths(kind, estimator):
    """The score of N(alpha mean, alpha^2 std^2 + sigma^2) has the curvature 1 / (alpha^2 std^2 + sigma^2)."""

    def fn(x, t, condition):
        std = (0.5 - condition.mean((1, 2)).double()).view(-1, 1, 1, 1)
        return gaussian.output(x, t, kind, 0.3, std)

    abar = None if kind == "flow" else gaussian.ABAR
    denoiser = CallableDenoiser(fn, abar, kind, empty=EMPTY, latent_shape=toy.SHAPE, fingerprint="gaussian")
    level = denoiser.level(0.2 if kind == "flow" else 150)
    alpha, sigma = level.alpha.item(), level.sigma.item()
    expected = 3 * (1 / (alpha**2 * 0.2**2 + sigma**2) - 1 / (alpha**2 * 0.5**2 + sigma**2))
    found = curvature_map(denoiser, latents(2), level, prompts(0.3, -0.2), estimator=estimator)
    torch.testing.assert_close(found[0], torch.full((4, 4), expected), rtol=0.01, atol=0.0)
    assert found[1].abs().max() == 0  # broader data than the empty prompt's: nothing is memorized


def test_score_difference_is_that_of_the_scores():
    denoiser, x = nonlinear(), latents()
    level = denoiser.level(200)
    found = score_difference_map(denoiser, x, level, prompts(1, 2))
    scores = torch.stack([torch.tanh(x[0]), torch.tanh(2 * x[1])]) / level.sigma
    torch.testing.assert_close(found, scores.square().sum(1))


def test_author_compat_is_their_estimate():
    denoiser, x, condition = linear(), latents(), prompts(1, 2)
    level = denoiser.level(1)
    theirs = curvature_map(denoiser, x, level, condition, author_compat=True, seed=5)
    ours = curvature_map(denoiser, x, level, condition, estimator="backward", probes=16, smoothing=0, seed=5)
    torch.testing.assert_close(theirs, ours * level.sigma)


# --- baselines ---


def test_baselines_of_the_same_and_of_another_model():
    one, other, x = nonlinear(), linear(), latents()
    level = one.level(300)
    options = {"estimator": "exact", "smoothing": 0}
    same = curvature_map(one, x, level, prompts(1, 2), baseline=prompts(1, 2), **options)
    assert same.abs().max() == 0
    alone = curvature_map(one, x, level, prompts(1, 2), baseline=Condition(text=EMPTY), **options)
    torch.testing.assert_close(alone, curvature_map(one, x, level, prompts(1, 2), **options))
    against = curvature_map(one, x, level, prompts(1, 2), baseline=(other, prompts(0.5)), **options)
    expected = 1 - torch.tanh(x[0]) ** 2 - 0.5 * matrix().diagonal().view(toy.SHAPE)
    torch.testing.assert_close(against[0], (expected.sum(0) / level.sigma).clamp_min(0))
    assert score_difference_map(one, x, level, prompts(1, 2), baseline=(other, prompts(0.5))).min() >= 0


def test_conditions_of_other_lengths_need_calls_of_their_own():
    denoiser, x = nonlinear(), latents()
    longer = torch.cat([prompts(1, 2)] * 2, dim=1)
    level = denoiser.level(1)
    torch.testing.assert_close(
        curvature_map(denoiser, x, level, longer), curvature_map(denoiser, x, level, prompts(1, 2))
    )


# --- properties ---

seeds = st.integers(0, 2**63 - 1)
some_estimator = st.sampled_from(["forward", "backward"])


@settings(max_examples=12, deadline=None)
@given(seeds, some_estimator, st.permutations(range(4)), st.integers(1, 40), st.floats(0, 3))
def test_rows_do_not_know_of_each_other(seed, estimator, order, batch_rows, smoothing):
    denoiser, x, condition = nonlinear(), latents(4), prompts(0.5, 1, 2, -1)
    options = {"estimator": estimator, "probes": 3, "seed": seed, "smoothing": smoothing}
    found = curvature_map(denoiser, x, denoiser.level(100), condition, **options)
    split = curvature_map(denoiser, x[order], denoiser.level(100), condition[order], batch_rows=batch_rows, **options)
    assert found.min() >= 0 and torch.isfinite(found).all()
    torch.testing.assert_close(split, found[order], rtol=1e-3, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_seeds_decide_and_nothing_global_is_drawn(seed):
    denoiser, x = linear(), latents(1)
    state = torch.get_rng_state()
    first, again, other = (
        curvature_map(denoiser, x, denoiser.level(1), prompts(1), seed=s, smoothing=0) for s in (seed, seed, seed ^ 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 4), seeds)
def test_smoothing_keeps_constants_and_the_range(height, width, by, seed):
    maps = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
    found = smooth(maps, by)
    assert found.shape == maps.shape
    assert maps.min() - 1e-6 <= found.min() and found.max() <= maps.max() + 1e-6
    torch.testing.assert_close(smooth(torch.ones(1, height, width), by), torch.ones(1, height, width))


def test_levels_and_what_is_known_already():
    denoiser, x, condition = nonlinear(), latents(), prompts(1, 2)
    levels = denoiser.level(torch.tensor([100, 400]))
    both = curvature_map(denoiser, x, levels, condition)
    for i in range(2):
        alone = curvature_map(denoiser, x[[i]], levels[[i]], condition[[i]])
        torch.testing.assert_close(both[[i]], alone, rtol=1e-3, atol=1e-3)
    difference = torch.tanh(x * torch.tensor([1.0, 2.0]).view(-1, 1, 1, 1))
    torch.testing.assert_close(
        curvature_map(denoiser, x, levels, condition, known=difference), both, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_inference_mode_gives_the_same(estimator):
    denoiser = nonlinear()
    expected = curvature_map(denoiser, latents(), denoiser.level(9), prompts(1, 2), estimator=estimator)
    with torch.inference_mode():
        found = curvature_map(denoiser, latents(), denoiser.level(9), prompts(1, 2), estimator=estimator)
    torch.testing.assert_close(found, expected)


# --- what cannot be answered ---


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_out_of_memory_leads_to_one_row_at_a_time_and_only_then_to_an_error(estimator):
    tight, ample = linear(most_rows=2), linear()
    options = {"estimator": estimator, "probes": 2}
    torch.testing.assert_close(
        curvature_map(tight, latents(), tight.level(1), prompts(1, 2), **options),
        curvature_map(ample, latents(), ample.level(1), prompts(1, 2), **options),
        rtol=1e-3,
        atol=1e-3,
    )
    with pytest.raises(OutOfMemory, match="rows"):
        curvature_map(linear(most_rows=1), latents(), ample.level(1), prompts(1, 2), **options)


def test_without_guidance_there_must_be_a_baseline():
    denoiser = toy.without_guidance(nonlinear())
    for ask in (curvature_map, score_difference_map):
        with pytest.raises(NotApplicable, match="starts from an image"):
            ask(denoiser, latents(), denoiser.level(1), prompts(1))
        assert ask(denoiser, latents(), denoiser.level(1), prompts(1), baseline=prompts(2)).shape == (2, 4, 4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_broken_models_and_latents_are_named(estimator):
    denoiser = linear(broken=True)
    with pytest.raises(NonFiniteError):
        curvature_map(denoiser, latents(), denoiser.level(1), prompts(1), estimator=estimator)
    x = latents()
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        curvature_map(linear(), x, denoiser.level(1), prompts(1), estimator=estimator)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(3, 4, 4)}, "B, C, H, W"),
        ({"x": torch.zeros(0, 3, 4, 4)}, "B, C, H, W"),
        ({"condition": prompts(1, 2, 3)}, "3 conditions do not fit 2 latents"),
        ({"baseline": prompts(1, 2, 3)}, "3 conditions of the baseline"),
        ({"baseline": "empty"}, "the baseline is None"),
        ({"baseline": (None, prompts(1))}, "the baseline is None"),
        ({"estimator": "jvp"}, "forward, backward, exact"),
        ({"probes": 0}, "at least one"),
        ({"smoothing": -1}, "0 or more"),
        ({"smoothing": float("nan")}, "0 or more"),
        ({"known": torch.zeros(1, 3, 4, 4)}, "known has shape"),
    ],
)
def test_bad_arguments_cost_one_line(change, words):
    denoiser = nonlinear()
    arguments = {"x": latents(), "level": denoiser.level(1), "condition": prompts(1)} | change
    with pytest.raises(InputError, match=words) as caught:
        curvature_map(denoiser, **arguments)
    assert "\n" not in str(caught.value)


def test_levels_that_do_not_fit_and_clean_latents_are_refused():
    denoiser = nonlinear()
    with pytest.raises(InputError, match="levels"):
        curvature_map(denoiser, latents(), denoiser.level(torch.tensor([1, 2, 3])), prompts(1))
    flow = CallableDenoiser(nonlinear().fn, None, "flow", empty=EMPTY, latent_shape=toy.SHAPE)
    with pytest.raises(InputError, match="without noise"):
        curvature_map(flow, latents(), flow.level(0.0), prompts(1))


def test_models_of_different_latent_spaces_are_not_compared():
    wide = CallableDenoiser(nonlinear().fn, toy.ABAR, empty=EMPTY, latent_shape=(16, 4, 4))
    denoiser = nonlinear()
    with pytest.raises(InputError, match="16 channels"):
        curvature_map(denoiser, latents(), denoiser.level(1), prompts(1), baseline=(wide, prompts(1)))
