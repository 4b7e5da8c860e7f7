"""The tiny unrelated models: what they are, and that their sampler arrives where their network points."""

import pytest
import torch

from training.zoo.styles import NETWORKS, TARGETS, models
from training.zoo.unrelated import WORDS, Network, levels, numbered, sample


def test_unrelated_models_share_no_style_and_children_follow_their_parents():
    names = [one.name for one in models()]
    assert len({*names}) == len(names)
    alone = [one for one in models() if one.parent is None and one.twin is None]
    assert len({one.style for one in alone}) == len(alone) == 18
    assert len({one.seed for one in models()}) == len(names)
    for one in models():
        if one.parent:
            (parent,) = (other for other in models() if other.name == one.parent)
            assert names.index(one.parent) < names.index(one.name)
            assert (one.network, one.target) == (parent.network, parent.target)
            assert one.name[:4] == one.parent[:4]  # what is chosen on is not reported on


@pytest.mark.parametrize("target", TARGETS)
def test_levels_run_from_an_image_to_noise(target):
    alpha, sigma = levels(target, torch.linspace(0, 1, 11))
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    assert alpha[0] > 0.99 and sigma[0] < 0.1 and sigma[-1] > 0.99
    if target != "flow":
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(11))


@pytest.mark.parametrize("target", TARGETS)
def test_images_are_what_the_network_points_at(target):
    one = next(one for one in models() if one.target == target)
    told = torch.full((4, 16, 16), 0.7)
    seen = []

    def network(x, time, words):
        seen.append(float(time[0]))
        return torch.where((words[:, 0] > 0)[:, None, None, None], told, 0.2).expand_as(x)

    made = sample(one, network, ["owl on red"] * 2, seed=3, steps=5, guidance=2.0)
    torch.testing.assert_close(made, (0.2 + 2 * (told - 0.2)).expand(2, 4, 16, 16))  # guided away from no words
    assert seen == sorted(seen, reverse=True) and len(seen) == 5


@pytest.mark.parametrize("kind", [NETWORKS[0], NETWORKS[4]])
def test_networks_tell_words_apart(kind):
    torch.manual_seed(0)
    network, x = Network(kind).eval(), torch.randn(1, 4, 16, 16).expand(3, -1, -1, -1)
    words = numbered(["", "picture of guitar, red", "red background with guitar"])
    assert words.shape == (3, WORDS) and not words[0].any()
    with torch.inference_mode():
        out = network(x, torch.full((3,), 500.0), words)
    assert out.shape == x.shape and not torch.allclose(out[1], out[2], atol=1e-5)
