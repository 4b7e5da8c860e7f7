"""What unrelated models' distances make expect, against generalised least squares written out and drawn tables."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from cryptomnesia.errors import InputError
from cryptomnesia.signals.unrelated import LEAST, OWN, USUAL_PAIRS, USUAL_SPREAD, unrelated


def drawn(count: int, rng: np.random.Generator, spread: float = USUAL_SPREAD) -> np.ndarray:
    """(count, count) distances of models that have nothing in common, as the random effects say."""
    own, pairs = rng.normal(0, np.sqrt(OWN) * spread, count), np.triu(rng.normal(0, spread, (count, count)), 1)
    table = np.exp(3 + own[:, None] + own + pairs + pairs.T)
    np.fill_diagonal(table, 0)
    return table


def left_out(table: np.ndarray, gone: int) -> tuple[float, float, float]:
    """A pair's residual, the variance factor of its prediction, and the others' squares, by matrices."""
    pairs = list(combinations(range(len(table)), 2))
    logs = np.log([table[pair] for pair in pairs])
    models = np.zeros((len(pairs), len(table)))
    for row, (one, other) in enumerate(pairs):
        models[row, [one, other]] = 1
    covariance = np.eye(len(pairs)) + OWN * models @ models.T
    rest = np.delete(np.arange(len(pairs)), gone)
    inverse = np.linalg.inv(covariance[np.ix_(rest, rest)])
    mean = inverse.sum(0) @ logs[rest] / inverse.sum()
    towards = covariance[gone, rest] @ inverse
    expected = mean + towards @ (logs[rest] - mean)
    factor = covariance[gone, gone] - towards @ covariance[rest, gone] + (1 - towards.sum()) ** 2 / inverse.sum()
    return logs[gone] - expected, factor, (logs[rest] - mean) @ inverse @ (logs[rest] - mean)


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_every_distance_is_compared_with_what_all_others_make_expect(count):
    table = drawn(count, np.random.default_rng(count))
    found, pairs = unrelated(table), list(combinations(range(count), 2))
    assert found.freedom == pytest.approx(USUAL_PAIRS + len(pairs) - 2)
    for number, pair in enumerate(pairs):
        residual, factor, squares = left_out(table, number)
        assert np.log(found.relative[pair]) == pytest.approx(residual)
        usual = (USUAL_PAIRS * USUAL_SPREAD**2 + squares) / found.freedom
        assert found.spread[pair] == pytest.approx(np.sqrt(usual * factor))
    assert np.allclose(found.relative, found.relative.T) and not found.relative.diagonal().any()


def test_it_promises_what_it_keeps():
    """Of drawn unrelated models of which nothing is known before but how `a` and `e` compare, 5 % have a parent."""
    rng, alarms, draws, count = np.random.default_rng(1), 0, 3000, 5
    for _ in range(draws):
        # a spread of its own for each pool, as the moderation supposes
        spread = USUAL_SPREAD * np.sqrt(USUAL_PAIRS / rng.chisquare(USUAL_PAIRS))
        found = unrelated(drawn(count, rng, spread))
        nearest = 1 + int(np.argmin(found.relative[0, 1:]))
        alarms += found.relative[0, nearest] < found.limit(0, nearest, among=count - 1, tau=-1.6449)
    assert alarms / draws == pytest.approx(0.05, abs=0.012)


def test_the_limit_is_students():
    found = unrelated(drawn(5, np.random.default_rng(2)))
    one = stats.t.ppf(stats.norm.cdf(-1.64), found.freedom)
    assert found.limit(0, 1, among=1, tau=-1.64) == pytest.approx(np.exp(one * found.spread[0, 1]))
    seldom = 1 - (1 - stats.norm.cdf(-1.64)) ** (1 / 4)
    four = stats.t.ppf(seldom, found.freedom)
    assert found.limit(0, 1, among=4, tau=-1.64) == pytest.approx(np.exp(four * found.spread[0, 1]))


def test_a_spread_beyond_the_usual_can_be_left_out():
    """A pool with three equal models: their pairs widen the spread that each is compared with."""
    table = drawn(7, np.random.default_rng(6), spread=0.2)
    narrow = unrelated(table)
    assert narrow.limit(1, 2, 4, -1.64, capped=True) == narrow.limit(1, 2, 4, -1.64)
    for pair in combinations((1, 2, 3), 2):
        table[pair] = table[pair[::-1]] = 0.02 * table[4, 5]
    wide = unrelated(table)
    assert wide.usual == narrow.usual < wide.spread[1, 2]
    assert wide.limit(1, 2, 4, -1.64) < wide.limit(1, 2, 4, -1.64, capped=True)


def test_the_p_value_is_that_of_the_limit():
    """A pair at the limit of 5 % has the p-value .05, for any number of pairs; unrelated models' are even."""
    found = unrelated(drawn(5, np.random.default_rng(5)))
    for among, tau in ((1, -1.64), (4, -1.64), (4, -2.5), (7, 0.3)):
        at = found.relative.copy()
        at[0, 2] = found.limit(0, 2, among=among, tau=tau)
        assert replace(found, relative=at).p_value(0, 2, among=among) == pytest.approx(stats.norm.cdf(tau))
    assert replace(found, relative=np.zeros((5, 5))).p_value(0, 1, among=3) == 0
    assert replace(found, relative=np.full((5, 5), 1e300)).p_value(0, 1, among=3) == 1


def test_neither_the_unit_nor_what_is_a_models_own_counts_for_much():
    table = drawn(6, np.random.default_rng(3))
    assert np.allclose(unrelated(7 * table).relative, unrelated(table).relative)
    far = table.copy()
    far[2] *= 20
    far[:, 2] *= 20
    before, after = unrelated(table).relative, unrelated(far).relative
    assert np.abs(np.log(after[0, 3:] / before[0, 3:])).max() < 0.3 * np.log(20)


def test_a_distance_that_is_chance_is_small_and_finite():
    table = drawn(5, np.random.default_rng(4))
    for value in (0.0, 1e-300):
        table[0, 1] = table[1, 0] = value
        found = unrelated(table)
        assert np.isfinite(found.relative).all() and np.isfinite(found.spread).all()
        assert found.relative[0, 1] < 3 * LEAST
    assert np.isfinite(unrelated(np.zeros((4, 4))).relative).all()


def test_odd_input():
    with pytest.raises(InputError, match="NaN or infinity"):
        unrelated(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="of 2 models say nothing"):
        unrelated(np.ones((2, 2)))
