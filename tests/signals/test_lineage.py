"""Distances between distributions of embeddings, against exact answers; what is decided from them."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from cryptomnesia.errors import InputError
from cryptomnesia.signals.divergences import divergence, divergences, gaussians, null_threshold
from cryptomnesia.signals.lineage import TAU, distances, judged, lineage, unrolled
from cryptomnesia.signals.unrelated import unrelated

NAMES = ("ada", "bo", "cy", "dot")


def cloud(centre, seed: int, n: int = 60, size: int = 24, spread: float = 1.0) -> np.ndarray:
    """(n, size) around a point whose first coordinates are given."""
    middle = np.zeros(size)
    middle[: len(centre)] = centre
    return middle + spread * np.random.default_rng(seed).standard_normal((n, size))


def corners(count: int, far: float = 8.0) -> dict[str, np.ndarray]:
    """Models that are all equally far apart."""
    return {name: cloud(far * np.eye(count)[i], seed=i) for i, name in enumerate(NAMES[:count])}


def random_gaussian(rng: np.random.Generator, size: int):
    root = rng.standard_normal((size, size))
    return rng.standard_normal(size), root @ root.T + 0.1 * np.eye(size)


# --- the divergence ---


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 1.0), (3.0, 2.0), (-7.5, 0.1)])
def test_one_dimension_at_equal_variance_is_the_papers_formula(mu, sigma):
    a, b = (np.array([1.0]), np.array([[sigma**2]])), (np.array([1.0 + mu]), np.array([[sigma**2]]))
    assert divergence(a, b) == pytest.approx(mu**2 / (8 * sigma**2))


def test_it_is_the_log_overlap_of_the_densities():
    """Bhattacharyya's definition, -ln of the integral of sqrt(p q), by brute force."""
    x = np.linspace(-60, 60, 400_001)

    def density(mean, sigma):
        return np.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))

    overlap = np.sqrt(density(0.5, 1.2) * density(2.0, 3.5)).sum() * (x[1] - x[0])
    found = divergence((np.array([0.5]), np.array([[1.2**2]])), (np.array([2.0]), np.array([[3.5**2]])))
    assert found == pytest.approx(-np.log(overlap), rel=1e-9)


def test_independent_dimensions_add_up():
    rng = np.random.default_rng(0)
    means, scales = rng.standard_normal((2, 5)), rng.uniform(0.5, 3, (2, 5))
    whole = divergence((means[0], np.diag(scales[0])), (means[1], np.diag(scales[1])))
    parts = [divergence((means[0, [i]], scales[0, [i], None]), (means[1, [i]], scales[1, [i], None])) for i in range(5)]
    assert whole == pytest.approx(sum(parts))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_symmetric_zero_on_equal_and_the_same_in_any_coordinates(seed, size):
    rng = np.random.default_rng(seed)
    a, b = random_gaussian(rng, size), random_gaussian(rng, size)
    found = divergence(a, b)
    assert found >= 0 and divergence(b, a) == pytest.approx(found)
    assert divergence(a, a) == pytest.approx(0, abs=1e-9)
    move, shift = rng.standard_normal((size, size)) + 3 * np.eye(size), rng.standard_normal(size)
    moved = [(move @ mean + shift, move @ covariance @ move.T) for mean, covariance in (a, b)]
    assert divergence(*moved) == pytest.approx(found, rel=1e-5, abs=1e-7)


# --- Gaussians ---


def test_covariances_are_shrunk_as_ledoit_and_wolf_say():
    rng = np.random.default_rng(1)
    points = [rng.standard_normal((n, 6)) * scale for n, scale in ((15, 1), (20, [1, 2, 3, 1, 1, 1]))]
    for (mean, covariance), rows in zip(gaussians(points), points, strict=True):
        np.testing.assert_allclose(mean, rows.mean(0))
        np.testing.assert_allclose(covariance, ledoit_wolf(rows)[0])


def test_a_singular_covariance_still_gives_a_distance():
    rng = np.random.default_rng(2)
    line = np.outer(rng.standard_normal(30), np.arange(1, 6))  # all on one line
    two_points = np.repeat([[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]], 15, axis=0)
    for points in ([line, line + 1], [two_points, line + 1], [np.zeros((30, 5)), line + 1]):
        found = distances(points)
        assert np.isfinite(found).all() and found[0, 1] > 0
    found = divergences(gaussians([two_points, line]))
    assert np.isfinite(found).all() and found[0, 1] > 0


def test_images_that_are_all_alike_are_named():
    for compat in (False, True):
        with pytest.raises(InputError, match="all alike"):
            distances([np.ones((12, 3)), np.zeros((12, 3))], author_compat=compat)
    one, varied = np.ones((12, 3)), np.random.default_rng(0).standard_normal((12, 3))
    assert np.isfinite(distances([one, varied])).all()
    with pytest.raises(InputError, match="all alike"):
        distances([one, varied], author_compat=True)


# --- Isomap ---


def test_isometric_data_keep_their_distances():
    """A flat sheet in a space of many dimensions, with every image the neighbour of all others."""
    rng = np.random.default_rng(3)
    sheet = rng.standard_normal((60, 3))
    frame = np.linalg.qr(rng.standard_normal((20, 20)))[0][:3]
    points = np.concatenate(unrolled([sheet[:30] @ frame, sheet[30:] @ frame], ["a"], 3, neighbours=59))
    apart = [[np.linalg.norm(x - y) for x, y in combinations(rows, 2)] for rows in (sheet, points)]
    np.testing.assert_allclose(apart[1], apart[0], rtol=1e-6, atol=1e-6)


def test_a_bent_line_is_unrolled_to_its_length():
    turn = np.linspace(0, 1.5 * np.pi, 120)
    arc = np.stack([np.cos(turn), np.sin(turn)], 1)
    points = np.concatenate(unrolled([arc[:60], arc[60:]], ["a"], 1, neighbours=2))[:, 0]
    assert np.ptp(points) == pytest.approx(1.5 * np.pi, rel=0.01)
    assert (np.diff(points) > 0).all() or (np.diff(points) < 0).all()


def test_clusters_far_apart_and_identical_images_are_joined():
    same = np.repeat(cloud([0], 0, n=1), 20, axis=0)
    points = unrolled([cloud([500], 1), same, cloud([-500], 2)], ["a", "b"])
    assert all(np.isfinite(rows).all() for rows in points)
    assert [len(rows) for rows in points] == [60, 20, 60]


# --- the decision ---


def test_the_parent_is_the_closest():
    found = lineage(cloud([8 * 0.8, 0, 0, 0], 9), corners(4))
    assert found.parent == found.nearest == "ada" and found.tested and not found.dropped
    assert min(found.distances, key=found.distances.__getitem__) == "ada"
    assert found.distances["ada"] < found.null_threshold
    second = sorted(found.distances.values())[1]
    assert found.null_threshold is not None
    assert found.margin == pytest.approx(min(second, found.null_threshold) - found.distances["ada"])
    assert found.images == (60, dict.fromkeys(NAMES, 60))


def test_farther_than_the_others_is_none_of_them():
    stranger = cloud([0, 0, 0, 0, 14], 9)
    for compat in (False, True):
        found = lineage(stranger, corners(4), author_compat=compat)
        assert found.parent is None and found.tested
        assert found.margin == pytest.approx(min(found.distances.values()) - found.null_threshold)


def test_as_far_as_the_others_is_none_of_them():
    assert lineage(cloud([0, 0, 0, 0, 8], 9), corners(4)).parent is None


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_rotations_shifts_and_scales_change_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    frame, shift = np.linalg.qr(rng.standard_normal((24, 24)))[0], rng.standard_normal(24)
    target, pool = cloud([5, 1], 9), corners(3)
    before = lineage(target, pool)
    after = lineage(scale * (target @ frame + shift), {n: scale * (x @ frame + shift) for n, x in pool.items()})
    assert after.parent == before.parent
    for name, distance in before.distances.items():
        assert after.distances[name] == pytest.approx(distance, rel=1e-3)


def test_a_fine_tune_that_varies_little_still_finds_its_parent():
    """Its own covariance makes it far from everything; the shared one does not."""
    target = cloud([8, 0, 0, 0, 3], 9, spread=0.05)
    assert lineage(target, corners(4)).parent == "ada"


def test_models_of_the_pool_that_are_one_are_kept_once():
    pool = {**corners(4), "ada again": cloud([8, 0, 0, 0], 77)}
    found = lineage(cloud([7, 0, 0, 0], 9), pool)
    assert found.dropped == {"ada again": "ada"} and found.parent == "ada"
    assert set(found.distances) == set(NAMES) and len(found.pairs) == 6
    turned = lineage(cloud([7, 0, 0, 0], 9), dict(reversed(pool.items())))
    assert turned.dropped == {"ada": "ada again"} and turned.parent == "ada again"


def test_several_models_that_are_one_do_not_hide_each_other():
    pool = {**corners(3), **{f"ada {number}": cloud([8, 0, 0, 0], 70 + number) for number in (2, 3)}}
    found = lineage(cloud([7, 0, 0, 0], 9), pool)
    assert found.dropped == {"ada 2": "ada", "ada 3": "ada"} and found.parent == "ada"


def test_two_models_that_are_one_and_another_are_a_pool_of_two():
    """The distances of three would tell of an unrelated model what is true of one and its double."""
    pool = {**corners(2), "ada again": cloud([8, 0], 77)}
    found = lineage(cloud([0, 7], 9), pool)
    assert (found.dropped, found.nearest) == ({"ada again": "ada"}, "bo")
    assert not found.tested and found.parent is None


def test_a_pool_of_one_or_two_is_not_tested():
    target = cloud([7, 0, 0, 0], 9)
    two = lineage(target, corners(2))
    assert (two.parent, two.nearest, two.null_threshold, two.tested) == (None, "ada", None, False)
    assert two.margin == pytest.approx(two.distances["bo"] - two.distances["ada"])
    one = lineage(target, corners(1))
    assert (one.parent, one.nearest, one.margin, one.pairs) == (None, "ada", None, {})


def test_the_papers_rule_is_plain_means_and_own_covariances():
    points = [cloud([7, 0], 9, size=4), *(rows[:, :4] for rows in corners(3).values())]
    table = distances(points, author_compat=True)
    found = judged(table, NAMES[:3], [60] * 4, author_compat=True)
    plain = divergences([(rows.mean(0), ledoit_wolf(rows)[0]) for rows in points])
    assert list(found.distances.values()) == pytest.approx(plain[0, 1:], rel=0.02)  # the least shrinkage is ours
    pairs = list(found.pairs.values())
    assert found.null_threshold == pytest.approx(np.mean(pairs) - 1.64 * np.std(pairs))


def test_the_threshold_of_the_nearest_allows_for_the_number_of_candidates():
    points = [cloud([7, 0], 9, size=4), *(rows[:, :4] for rows in corners(4).values())]
    table = distances(points)
    found, compared = judged(table, NAMES, [60] * 5), unrelated(table)
    assert found.distances == pytest.approx(dict(zip(NAMES, compared.relative[0, 1:], strict=True)))
    assert found.null_threshold == pytest.approx(compared.limit(0, 1, among=4, tau=-1.64))
    assert found.null_threshold < compared.limit(0, 1, among=1, tau=-1.64)
    stricter = judged(table, NAMES, [60] * 5, tau=-2.33)
    assert stricter.null_threshold < found.null_threshold and stricter.distances == found.distances


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.01, 1e4), min_size=3, max_size=3))
def test_the_papers_rule_cannot_thin_out_three(pairs):
    """None of three numbers is 1.64 standard deviations below their mean."""
    assert null_threshold(pairs, TAU) <= min(pairs) * (1 + 1e-9)


def test_distances_are_standard_deviations_less_what_chance_adds():
    """Squares of distances are right on average, however few images there are."""
    rng, squares = np.random.default_rng(4), []
    for _ in range(300):
        points = [3 * rng.standard_normal((40, 4)) for _ in range(3)]
        points[2] += [9, 0, 0, 0]
        table = distances(points)
        assert table[0, 0] == 0 and np.allclose(table, table.T)
        squares.append(table[1, 2] ** 2)
    assert np.mean(squares) == pytest.approx(9, rel=0.06)  # 3 standard deviations; chance would add .2


def test_a_mean_over_prompts_is_judged_like_one_prompt():
    near, far = (
        [cloud([x, 0, y], 9, size=4), *(rows[:, :4] for rows in corners(3, 3).values())] for x, y in ((3, 0), (0, 0))
    )
    tables = [distances(points) for points in (near, far)]
    one, both = (judged(table, NAMES[:3], [60] * 4) for table in (tables[0], np.mean(tables, axis=0)))
    assert one.parent == both.nearest == "ada" and one.distances["ada"] < both.distances["ada"]


def test_plain_data():
    found = lineage(cloud([7], 9), corners(3)).to_dict()
    assert found["parent"] == "ada" and found["tested"] is True
    assert [pair["models"] for pair in found["pairs"]] == [["ada", "bo"], ["ada", "cy"], ["bo", "cy"]]
    assert found["images"]["target"] == 60


# --- bad input ---


@pytest.mark.parametrize(
    ("target", "pool", "words"),
    [
        (cloud([0], 0), {}, "the pool is empty"),
        (cloud([0], 0, n=10), corners(3), "10 images of the target are too few for 10 dimensions: give at least 11"),
        (cloud([0], 0), {**corners(2), "cy": cloud([0], 0, n=3)}, "3 images of cy are too few"),
        (cloud([0], 0, size=9), corners(2), "the embeddings of ada are by another encoder"),
        (np.full((20, 24), np.nan), corners(2), "the target hold NaN"),
        (np.zeros(24), corners(2), r"are \(images, D\), not \(24,\)"),
        (np.ones((20, 24)), {"ada": np.ones((20, 24))}, "all images have the same embedding"),
        (np.ones((20, 24)), {"ada": np.ones((20, 24)) + 1e-8}, "all images have the same embedding"),
    ],
)
def test_bad_input_costs_one_line(target, pool, words):
    with pytest.raises(InputError, match=words) as error:
        lineage(target, pool)
    assert "\n" not in str(error.value)


def test_the_dimension_is_positive():
    with pytest.raises(InputError, match="at least 1, not 0"):
        lineage(cloud([0], 0), corners(2), dimension=0)
