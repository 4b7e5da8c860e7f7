"""No number that is not finite takes part in a question of lineage, and the order of images plays no part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptomnesia.errors import InputError
from cryptomnesia.lineage.parentage import combined
from cryptomnesia.signals.divergences import divergence, divergences, gaussians, null_threshold
from cryptomnesia.signals.lineage import TAU, distances, judged, lineage, unrolled
from cryptomnesia.signals.unrelated import unrelated

STEADY = settings(deadline=None, derandomize=True, max_examples=12)
ODD = st.sampled_from([float("nan"), float("inf"), float("-inf")])
SIZE, NAMES = 16, ("ada", "bo", "cy")


def table(values: np.ndarray) -> np.ndarray:
    """(4, 4) positive distances, symmetric where they are finite."""
    return np.abs(values).reshape(4, 4) + 1 if np.isfinite(values).all() else values.reshape(4, 4)


def points(values: np.ndarray) -> list[np.ndarray]:
    """Of four models, (2, 2) each."""
    return list(values.reshape(4, 2, 2))


def embeddings(values: np.ndarray) -> list[np.ndarray]:
    """Of four models, six images each; the values are a part of the first's or the last's."""
    rest = [np.random.default_rng(seed).normal(size=(6, 4)) + seed for seed in range(4)]
    rest[0][:2], rest[3][:2] = values[:8].reshape(2, 4), values[8:].reshape(2, 4)
    return rest


def all_together(values: np.ndarray) -> Any:
    plain, images = table(np.ones(SIZE)), {"a": [20] * 4, "b": [20] * 4}
    again = [[plain], [table(values)]]
    return combined({"a": plain, "b": plain}, again, NAMES, images, "e", np.random.default_rng(1))


FUNCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "lineage": lambda v: lineage(embeddings(v)[0], dict(zip(NAMES, embeddings(v)[1:], strict=True)), dimension=2),
    "as the authors": lambda v: lineage(
        embeddings(v)[0], dict(zip(NAMES, embeddings(v)[1:], strict=True)), dimension=2, author_compat=True
    ),
    "unrolled": lambda v: unrolled(embeddings(v), NAMES, 2),
    "distances": lambda v: distances(points(v)),
    "gaussians": lambda v: gaussians(points(v)),
    "divergence": lambda v: divergence(*((part[0], np.cov(part.T) + np.eye(2)) for part in points(v)[:2])),
    "divergences": lambda v: divergences([(part[0], np.cov(part.T) + np.eye(2)) for part in points(v)]),
    "judged": lambda v: judged(table(v), NAMES, [20] * 4),
    "unrelated": lambda v: unrelated(table(v)),
    "null_threshold": lambda v: null_threshold(list(v), TAU),
    "combined": all_together,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(place=st.integers(0, SIZE - 1), odd=ODD)
@example(place=1, odd=float("nan"))
@STEADY
def test_no_number_may_be_odd(name, place, odd):
    values = np.abs(np.random.default_rng(0).normal(size=SIZE)) + 0.1
    FUNCTIONS[name](values)
    values[place % 8 if name == "divergence" else place] = odd
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match="NaN or infinity") as error:
        for _ in range(20):  # the bootstrap draws prompts, and may leave one out
            FUNCTIONS[name](values)
    assert "\n" not in str(error.value)


@given(seed=st.integers(0, 10**6))
@STEADY
def test_the_order_of_images_plays_no_part(seed):
    rng = np.random.default_rng(seed)
    models = [rng.normal(size=(8, 4)) + number for number in range(4)]
    mixed = [rows[rng.permutation(8)] for rows in models]
    one, other = (distances([rows[:, :2] for rows in some]) for some in (models, mixed))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert judged(one, NAMES, [8] * 4).parent == judged(other, NAMES, [8] * 4).parent
