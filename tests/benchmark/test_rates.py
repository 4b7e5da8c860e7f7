"""Rates and their intervals agree with independent ones, and with published figures."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from cryptomnesia.benchmark.rates import share, stands_out, told_apart, tpr_at_fpr, wilson
from cryptomnesia.two_samples import auc_of_draws


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(1, 1, 60).round(1), rng.normal(0, 1, 150).round(1)  # with ties


def test_the_area_is_scikit_learns(scores):
    positive, negative = scores
    truth = [1] * len(positive) + [0] * len(negative)
    assert stands_out(positive, negative) == pytest.approx(roc_auc_score(truth, np.concatenate(scores)))


def test_so_many_negatives_may_be_flagged_and_no_more():
    negative = np.arange(200.0)  # two of 200 are 1 %
    assert tpr_at_fpr(np.array([197.0, 197.5, 198.0, 250.0]), negative) == 0.75
    assert tpr_at_fpr(np.array([197.0]), negative) == 0
    few = np.arange(99.0)  # of which 1 % is none
    assert tpr_at_fpr(np.array([97.5, 98.0, 98.5]), few) == pytest.approx(1 / 3)
    assert tpr_at_fpr(np.array([5.0, 60.0]), np.arange(100.0), most=0.5) == 0.5


def test_equal_scores_are_on_neither_side():
    assert tpr_at_fpr(np.ones(5), np.ones(5)) == 0 and stands_out(np.ones(5), np.ones(5)) == 0.5


def test_intervals_are_those_of_scipy(scores):
    positive, negative = scores
    area, rate = told_apart({"x": positive}, {"x": negative}, seed=3)["x"]
    for estimate, statistic in ((area, stands_out), (rate, tpr_at_fpr)):
        assert estimate.value == statistic(positive, negative)
        theirs = bootstrap(
            scores, statistic, vectorized=False, method="percentile", n_resamples=1000, rng=np.random.default_rng(4)
        ).confidence_interval
        spread = theirs.high - theirs.low
        assert abs(estimate.low - theirs.low) < spread / 4 and abs(estimate.high - theirs.high) < spread / 4


def test_many_draws_at_once_are_as_one_after_the_other(scores):
    rng = np.random.default_rng(1)
    some, others = rng.integers(60, size=(7, 60)), rng.integers(150, size=(7, 150))
    counts = [np.stack([np.bincount(row, minlength=of) for row in drawn]) for drawn, of in ((others, 150), (some, 60))]
    positive, negative = scores
    areas = auc_of_draws(negative, positive, *(np.asarray(each, np.float64) for each in counts))
    assert areas == pytest.approx([stands_out(positive[s], negative[o]) for s, o in zip(some, others, strict=True)])
    rates = tpr_at_fpr(positive[some], negative[others])
    assert rates.tolist() == [tpr_at_fpr(positive[s], negative[o]) for s, o in zip(some, others, strict=True)]


def test_every_method_sees_the_same_draws(scores):
    positive, negative = scores
    found = told_apart({"x": positive, "y": 3 * positive}, {"x": negative, "y": 3 * negative}, rounds=50)
    assert found["x"] == found["y"] == told_apart({"x": positive}, {"x": negative}, rounds=50)["x"]
    assert found["x"] != told_apart({"x": positive}, {"x": negative}, rounds=50, seed=1)["x"]


def test_what_no_draw_changes_has_an_interval_all_the_same():
    area, rate = told_apart({"x": np.arange(100.0, 120)}, {"x": np.arange(30.0)}, rounds=20)["x"]
    assert (area.value, area.high, rate.value, rate.high) == (1, 1, 1, 1)
    assert 0.8 < area.low < 0.95 and rate.low == pytest.approx(0.8389, abs=1e-4)  # Wilson's for 20 of 20


@pytest.mark.parametrize(
    "count, of, low, high",  # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_shares_have_the_published_intervals(count, of, low, high):
    found = share(count, of)
    assert found.value == count / of and (found.low, found.high) == wilson(count / of, of)
    assert found.low == pytest.approx(low, abs=5e-5) and found.high == pytest.approx(high, abs=5e-5)
