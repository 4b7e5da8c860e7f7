"""All methods are measured on the same noise, with no more rows than it takes."""

import pytest
import torch

from cryptomnesia import CallableDenoiser
from cryptomnesia.benchmark.methods import METHODS, measure, rows_per_prompt
from cryptomnesia.calibration import Combination
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.memorization import memorization_score

PROMPTS = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))


def network(x, t, text, *scale):
    pull = text.mean((1, 2)).view(-1, 1, 1, 1) * (1 + t.float().view(-1, 1, 1, 1) / 1000)
    return torch.tanh(x + pull * x.flip(-1)) * (1 + scale[0].view(-1, 1, 1, 1) / 10 if scale else 1)


def denoiser(kind, **options):
    alphas = None if kind == "flow" else torch.linspace(0.999, 0.005, 1000)
    return CallableDenoiser(network, alphas, kind, empty=torch.zeros(1, 2, 3), latent_shape=(2, 4, 4), **options)


@pytest.mark.parametrize("kind, twice", [("epsilon", False), ("v", True), ("sample", True), ("flow", True)])
def test_each_score_is_what_it_is_called(kind, twice):
    model, noise = denoiser(kind), draw_noise(denoiser(kind), 3, 7)
    found = measure(model, PROMPTS, noise)
    theirs = memorization_score(model, PROMPTS, noise=noise, author_compat=True)
    ours = memorization_score(model, PROMPTS, noise=noise)
    assert torch.equal(found.authors, theirs.score)
    combination = Combination([1.0] * 8)
    scores = found.scores(combination)
    assert list(scores) == [method.key for method in METHODS]
    assert torch.equal(scores["default"], combination.score(ours.spectrum))
    assert all(torch.equal(scores[name], getattr(ours, name).double()) for name in ("iso", "aniso", "aniso_flat"))
    assert found.forward_rows == ours.forward_rows * (1 + twice)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("reference", ["empty branch", "guidance scales"])
def test_the_cost_is_what_was_said(kind, reference):
    model = denoiser(kind, reference=reference)
    each, per_call = rows_per_prompt(model, 3)
    assert measure(model, PROMPTS, draw_noise(model, 3, 7)).forward_rows == 5 * each + per_call
