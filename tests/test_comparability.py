"""The statistics of the membership test: exact cases, scipy, uniform p-values, coverage and power by simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cryptomnesia.comparability import (
    IMAGE_FEATURES,
    PROMPT_FEATURES,
    _single_features,
    comparability,
    image_features,
    prompt_features,
)
from cryptomnesia.two_samples import (
    auc,
    auc_interval,
    detectable_auc,
    images_needed,
    permutation_p,
    rank_sum_p,
)

NUMBERS = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12).map(np.array)


def shifted(effect: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Normal numbers with that AUC."""
    return rng.normal(0, 1, count), rng.normal(np.sqrt(2) * stats.norm.ppf(effect), 1, count)


@given(NUMBERS, NUMBERS)
@settings(deadline=None)
def test_auc_counts_pairs(low, high):
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in low for b in high]
    assert auc(low, high) == pytest.approx(np.mean(pairs))
    assert auc(low, high) + auc(high, low) == pytest.approx(1)


def test_permutation_against_all_relabellings():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 5), rng.normal(0.8, 1, 6)
    pooled = np.concatenate([low, high])
    sums = [pooled[list(rows)].sum() for rows in combinations(range(11), 5)]
    exact = np.mean(np.array(sums) <= low.sum() + 1e-12)
    assert permutation_p(low, high, rounds=40_000) == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


def test_permutation_against_scipy():
    rng = np.random.default_rng(1)
    low, high = shifted(0.62, 40, rng)
    theirs = stats.permutation_test(
        (low, high), lambda a, b, axis: a.mean(axis) - b.mean(axis), vectorized=True, alternative="less"
    ).pvalue
    assert permutation_p(low, high) == pytest.approx(theirs, abs=0.012)
    assert rank_sum_p(low, high) == stats.mannwhitneyu(low, high, alternative="less").pvalue
    assert rank_sum_p(high, low) > 0.5


def test_equal_numbers_prove_nothing():
    same = np.full(20, 3.3)
    assert permutation_p(same, same) == 1 and auc(same, same) == 0.5 and rank_sum_p(same, same) >= 0.5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_smallest_p_value_is_not_zero(seed):
    low, high = np.arange(10.0), np.arange(10.0) + 100
    assert 0 < permutation_p(low, high, seed, rounds=99) <= 0.02


@pytest.mark.parametrize(("first", "second"), [(12, 12), (30, 15)])
def test_p_values_are_uniform_without_a_difference(first, second):
    rng = np.random.default_rng(first)
    numbers = [(rng.gamma(2, 1, first), rng.gamma(2, 1, second)) for _ in range(600)]
    permuted = np.array([permutation_p(a, b, i, rounds=199) for i, (a, b) in enumerate(numbers)])
    ranked = np.array([rank_sum_p(a, b) for a, b in numbers])
    for level in (0.05, 0.2, 0.5):
        most = level + 3 * np.sqrt(level * (1 - level) / 600)
        assert (permuted <= level).mean() <= most and (ranked <= level).mean() <= most
        assert (np.maximum(permuted, ranked) <= level).mean() <= most
    assert stats.kstest(permuted, "uniform").pvalue > 0.001


@pytest.mark.parametrize("effect", [0.5, 0.7, 0.93])
def test_the_interval_covers_the_truth(effect):
    rng = np.random.default_rng(5)
    held = []
    for _ in range(300):
        low, high = auc_interval(auc(*shifted(effect, 40, rng)), 40, 40)
        held.append(low <= effect <= high)
    assert np.mean(held) > 0.92


@given(st.floats(0, 1), st.integers(2, 300), st.integers(2, 300))
@settings(deadline=None)
def test_intervals_are_in_order(value, first, second):
    low, high = auc_interval(value, first, second)
    assert 0 <= low <= value <= high <= 1 and high - low > 0
    mirrored = auc_interval(1 - value, second, first)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


@pytest.mark.parametrize("effect", [0.6, 0.7])
def test_the_number_of_images_gives_the_power(effect):
    """Noether's formula against a simulation of the rank-sum test."""
    rng, count = np.random.default_rng(2), images_needed(effect, 0.05)
    assert count is not None
    found = np.mean([rank_sum_p(*shifted(effect, count, rng)) <= 0.05 for _ in range(600)])
    assert 0.75 < found < 0.88
    assert images_needed(0.5, 0.05) is None and images_needed(0.4, 0.05) is None


def test_the_detectable_effect_is_found_as_often():
    rng, effect = np.random.default_rng(3), detectable_auc(50, 50, 0.05)
    assert effect is not None
    found = np.mean([rank_sum_p(*shifted(effect, 50, rng)) <= 0.05 for _ in range(600)])
    assert 0.75 < found < 0.88
    assert detectable_auc(2, 2, 0.01) is None


def test_comparable_sets_are_seldom_called_confounded():
    rng = np.random.default_rng(4)
    names = tuple("abcdef")
    found = [comparability(rng.normal(size=(25, 6)), rng.normal(size=(25, 6)), names, seed=i) for i in range(120)]
    rate = np.mean([not one.comparable for one in found])
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert all(0 < one.p_value <= 1 and 0 <= one.auc <= 1 for one in found)


def test_sets_that_differ_are_called_confounded_and_why():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    b[:, 4] += 2
    found = comparability(a, b, tuple("abcdef"))
    assert not found.comparable and found.auc > 0.8 and found.differs_most == "e"


def test_single_features_are_compared_by_their_auc():
    rng = np.random.default_rng(8)
    x = rng.integers(0, 4, (11, 3)).astype(float)
    labels = np.stack([np.repeat([1.0, 0.0], [5, 6]), rng.permutation(np.repeat([1.0, 0.0], [5, 6]))], 1)
    wanted = [[abs(auc(f[label == 0], f[label == 1]) - 0.5) for label in labels.T] for f in x.T]
    np.testing.assert_allclose(_single_features(x, labels), wanted, atol=1e-12)


def test_one_feature_of_many_is_seen_in_small_sets():
    rng = np.random.default_rng(9)
    noticed = []
    for seed in range(20):
        a, b = rng.normal(size=(20, 26)), rng.normal(size=(20, 26))
        b[:, 7] += 2
        noticed.append(not comparability(a, b, IMAGE_FEATURES[:26], seed=seed).comparable)
    assert np.mean(noticed) > 0.9


def test_constant_features_tell_nothing():
    found = comparability(np.ones((12, 3)), np.ones((12, 3)), tuple("abc"))
    assert found.comparable and found.auc == 0.5 and found.p_value == 1


def test_features_of_known_images():
    import torch

    flat = dict(zip(IMAGE_FEATURES, image_features(torch.full((1, 3, 40, 60), 0.25)), strict=True))
    assert flat["mean red"] == pytest.approx(0.25) and flat["spread of blue"] == pytest.approx(0, abs=1e-6)
    assert flat["brightness at 50 %"] == pytest.approx(0.25) and flat["colourfulness"] == 0
    assert flat["flat parts"] == 1 and flat["compressed size"] < np.log(60)
    assert flat["width"] == pytest.approx(np.log(60)) and flat["height"] == pytest.approx(np.log(40))
    steps = torch.zeros(1, 3, 64, 64)
    steps[..., 8:16] = 1
    steps[..., 24:32] = 1
    blocky = dict(zip(IMAGE_FEATURES, image_features(steps), strict=True))
    assert blocky["8-pixel blocks"] == pytest.approx(4 / 7)  # 4 of 7 inner borders across, none down
    assert blocky["sharpness"] > flat["sharpness"] and blocky["compressed size"] > flat["compressed size"]
    assert blocky["flat parts"] == pytest.approx(1 - 4 / 63)  # four edges in 63 steps across
    assert len(prompt_features("")) == len(PROMPT_FEATURES) and prompt_features("a b")[2] == pytest.approx(2 / 3)
