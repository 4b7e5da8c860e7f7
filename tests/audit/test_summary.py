"""Numbers over a whole run, against exact and slow references; clusters of near-identical texts."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, false_discovery_control

from cryptomnesia.audit import clusters
from cryptomnesia.audit.clusters import ALIKE, first_alike, jaccard, shingles
from cryptomnesia.audit.page import AuditPage
from cryptomnesia.audit.results import Words
from cryptomnesia.audit.summary import (
    LEVELS,
    at_least,
    beta_quantile,
    false_alarms,
    needed,
    summarize,
)
from cryptomnesia.calibration import benjamini_hochberg
from cryptomnesia.false_discovery import adjusted, rejected

conformal = st.integers(1, 60).flatmap(
    lambda n: st.lists(st.integers(1, n + 1).map(lambda k: Fraction(k, n + 1)), min_size=1, max_size=40)
)


def exact(p_values):
    """Adjusted p-values by their definition, in fractions."""
    m = len(p_values)
    at = {p: min(Fraction(1), *(q * m / sum(r <= q for r in p_values) for q in p_values if q >= p)) for p in p_values}
    return [at[p] for p in p_values]


@given(conformal)
def test_adjusted_is_exact(p_values):
    found = adjusted(np.array([float(p) for p in p_values]))
    assert found == pytest.approx([float(q) for q in exact(p_values)], rel=1e-14)


@given(conformal, st.sampled_from(LEVELS))
def test_what_is_rejected_is_exact_even_at_the_level_itself(p_values, level):
    found = rejected(adjusted(np.array([float(p) for p in p_values])), level)
    assert found.tolist() == [q <= Fraction(str(level)) for q in exact(p_values)]


def test_adjusted_agrees_with_scipy_and_with_the_list_of_rejections():
    p_values = np.random.default_rng(0).random(3000) ** 3
    found = adjusted(p_values)
    assert np.allclose(found, false_discovery_control(p_values), rtol=1e-12)
    for level in LEVELS:
        assert rejected(found, level).tolist() == benjamini_hochberg(p_values.tolist(), level)


@given(conformal, st.data())
def test_missing_p_values_count_for_nothing(p_values, data):
    there = np.array([float(p) for p in p_values])
    mixed = data.draw(st.permutations([*there, *[math.nan] * 5]))
    found = adjusted(np.array(mixed))
    assert np.isnan(found).tolist() == np.isnan(mixed).tolist()
    assert not rejected(found, 0.2)[np.isnan(mixed)].any()
    assert sorted(found[~np.isnan(found)]) == pytest.approx(sorted(adjusted(there)))


def test_nothing_to_adjust():
    assert adjusted(np.zeros(0)).shape == (0,)
    assert np.isnan(adjusted(np.full(3, math.nan))).all()


@given(st.integers(1, 60), st.integers(1, 500), st.sampled_from([0.05, 0.5, 0.95]))
def test_beta_quantile_is_scipys(a, b, level):
    assert beta_quantile(level, a, b) == pytest.approx(beta.ppf(level, a, b), rel=1e-6)


@given(st.integers(0, 300), st.integers(1, 250), st.floats(0.001, 0.5))
def test_binomial_tail_is_scipys(count, n, rate):
    assert at_least(count, n, rate) == pytest.approx(binom.sf(count - 1, n, rate), abs=1e-9)


@given(st.integers(-1, 30), st.integers(1, 25), st.integers(1, 99).map(lambda percent: Fraction(percent, 100)))
def test_binomial_tail_is_exact(count, n, rate):
    ways = (math.comb(n, j) * rate**j * (1 - rate) ** (n - j) for j in range(max(0, count), n + 1))
    assert at_least(count, n, float(rate)) == pytest.approx(float(sum(ways)), abs=1e-12)


def test_false_alarms_of_a_calibration():
    assert false_alarms(100_000, 0.01).expected == 1000
    found = false_alarms(100_000, 0.01, 344)
    assert found.low is not None and found.high is not None and found.low < 1000 < found.high
    assert found.low == pytest.approx(1e5 * beta.ppf(0.05, 3, 342)) and found.high == pytest.approx(
        1e5 * beta.ppf(0.95, 3, 342)
    )
    larger = false_alarms(100_000, 0.01, 20_000)
    assert larger.low is not None and larger.high is not None and found.low < larger.low < larger.high < found.high
    assert false_alarms(50, 0.001, 100).expected == 0  # so small a calibration flags nothing at that rate


def test_more_than_chance_is_told_from_chance():
    alarms = false_alarms(100, 0.01)
    assert alarms.explain(0) and alarms.explain(2) and not alarms.explain(10)
    assert false_alarms(100_000, 0.01, 344).explain(1500) and not false_alarms(100_000, 0.01, 20_000).explain(1500)


@given(st.integers(1, 3000), st.integers(20, 500), st.sampled_from(LEVELS))
def test_needed_is_the_least_number_that_is_rejected(rows, benign, level):
    least = needed(rows, level, benign)
    for count in (least - 1, least):
        if 0 < count <= rows:
            p_values = np.full(rows, 1.0)
            p_values[:count] = 1 / (benign + 1)
            assert rejected(adjusted(p_values), level).sum() == (count if count >= least else 0)


def test_summary_counts():
    verdicts = Words(np.array([0, 0, 1, 1, 0]), ("memorized", "clear"))
    p_values = np.array([0.001, 0.001, 0.5, 0.8, 0.002])
    found = summarize(verdicts, p_values, np.array([0, 0, 2, 3, 4]), 0.01, None)
    assert (found.rows, found.flagged, found.unlike, found.verdicts) == (5, 3, 2, {"memorized": 3, "clear": 2})
    assert found.alarms is not None and found.alarms.expected == 0.05
    assert [(one.level, one.rows) for one in found.discoveries] == [(0.01, 3), (0.05, 3), (0.1, 3), (0.2, 3)]
    assert found.discoveries[1].by_chance == pytest.approx(0.15)


def test_summary_without_calibration():
    verdicts = Words(np.zeros(2, int), ("uncalibrated",))
    found = summarize(verdicts, np.full(2, math.nan), np.arange(2), None, None)
    assert found.alarms is None and found.discoveries == () and found.flagged == 0


# --- clusters ---

VOCABULARY = ["a", "red", "cat,", "Cat", "on", "the", "roof", "4k!", "猫", "の", "絵", "🎉", "(x:1.2)", "ﬁne"]
texts = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join), max_size=40)


@given(texts)
def test_every_text_is_close_to_the_one_that_stands_for_it(many):
    found = first_alike(many)
    assert found.shape == (len(many),) and (found <= np.arange(len(many))).all()
    assert (found[found] == found).all()
    sets = [shingles(text) for text in many]
    assert all(jaccard(sets[i], sets[leader]) >= ALIKE for i, leader in enumerate(found))
    for i, one in enumerate(sets):  # what is the same set is in the same cluster
        assert all(found[i] == found[j] for j in range(i) if np.array_equal(one, sets[j]))


@given(st.text(max_size=80), st.text(max_size=80))
def test_jaccard_is_that_of_sets(a, b):
    one, other = shingles(a), shingles(b)
    left, right = set(one.tolist()), set(other.tolist())
    assert len(left) == len(one) > 0 and sorted(left) == one.tolist()
    assert jaccard(one, other) == pytest.approx(len(left & right) / len(left | right))


def corpus(count, seed=0):
    """Texts of 25 random words, each with copies in which one word is another; whose is whose."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(2000)]
    many, owners = [], []
    for owner in range(count):
        base = draw.choices(words, k=25)
        for _ in range(draw.randint(1, 4)):
            copy = list(base)
            copy[draw.randrange(25)] = draw.choice(words)
            many.append(" ".join(copy))
            owners.append(owner)
    order = draw.sample(range(len(many)), len(many))
    return [many[i] for i in order], [owners[i] for i in order]


def test_clusters_are_found_among_many():
    many, owners = corpus(800)
    found = first_alike(many)
    assert all(owners[i] == owners[leader] for i, leader in enumerate(found))
    assert len(set(found.tolist())) <= 1.01 * 800  # a pair is missed now and then


def test_batches_change_nothing(monkeypatch):
    many, _ = corpus(60)
    whole = first_alike(iter(many))
    monkeypatch.setattr(clusters, "BATCH", 7)
    assert first_alike(iter(many)).tolist() == whole.tolist() == first_alike(many).tolist()


def test_what_counts_as_near_identical():
    prompt = "a photo of a cat sitting on a windowsill at sunrise, soft light"
    alike = [prompt.upper(), prompt + "!!", prompt.replace("sunrise", "sunset")]
    unlike = ["a photo of a dog in the rain", "", "...", "a cat"]
    found = first_alike([prompt, *alike, *unlike])
    assert found.tolist() == [0, 0, 0, 0, 4, 5, 6, 7]
    assert first_alike(
        ["夜の森を歩く白い狐、浮世絵風の版画、満月", "夜の森を歩く白い狐 浮世絵風の版画 満月!"]
    ).tolist() == [0, 0]
    assert first_alike(["夜の森を歩く白い狐", "昼の海を泳ぐ黒い鯨"]).tolist() == [0, 1]


def test_the_old_name_of_the_rejected_rows_stays():
    assert AuditPage.standing is AuditPage.rejected
