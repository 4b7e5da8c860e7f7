"""No number that is not finite takes part in a test of membership, and no order or swap makes an accusation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.membership import LIKELY, Measured, Settings, Store, comparability, compare, measure
from cryptomnesia.membership.single import judge
from cryptomnesia.two_samples import (
    auc,
    auc_interval,
    detectable_auc,
    images_needed,
    permutation_p,
    rank_sum_p,
)

from ..helpers import gaussian

STEADY = settings(deadline=None, derandomize=True, max_examples=25)
ODD = st.sampled_from([float("nan"), float("inf"), float("-inf")])
COUNT, FEATURES = 12, 3


def measured(kind: str, statistic: np.ndarray, features: np.ndarray | None = None) -> Measured:
    """Images with those numbers, all of one kind unless told otherwise."""
    if features is None:
        features = np.random.default_rng(len(kind)).normal(size=(len(statistic), FEATURES))
    names = tuple(f"{kind} {i}" for i in range(len(statistic)))
    return Measured(names, statistic, features, names, {}, 1)


def numbers(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def compared(low: np.ndarray, high: np.ndarray, alpha: float = 0.05) -> Any:
    return compare(
        measured("low", low), measured("high", high), settings=Settings("sima_mc"), fingerprint="f", alpha=alpha
    )


def told_apart(low: np.ndarray, high: np.ndarray) -> Any:
    return comparability(np.stack([low] * FEATURES, 1), np.stack([high] * FEATURES, 1), ("a", "b", "c"))


PAIRS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "auc": auc,
    "rank_sum_p": rank_sum_p,
    "permutation_p": lambda low, high: permutation_p(low, high, rounds=99),
    "compare": compared,
    "comparability": told_apart,
    "single reference": lambda low, high: judge(measured("one", low[:1]), measured("others", np.r_[low, high])),
    "single member": lambda low, high: judge(
        measured("one", low[1:2]), measured("others", high), measured("known", low)
    ),
}


@pytest.mark.parametrize("function", PAIRS.values(), ids=PAIRS)
@given(place=st.integers(0, 2 * COUNT - 1), odd=ODD)
@example(place=3, odd=float("nan"))
@STEADY
def test_no_number_may_be_odd(function, place, odd):
    both = numbers(0, 2 * COUNT)
    function(both[:COUNT], both[COUNT:])
    both[place] = odd
    with pytest.raises(InputError, match="NaN or infinity") as error:
        function(both[:COUNT], both[COUNT:])
    assert "\n" not in str(error.value)


def test_one_nan_among_twenty_accuses_nobody():
    low, high = numbers(1, 20), numbers(2, 20)
    assert compared(low, high).verdict != LIKELY
    low[7] = float("nan")
    with pytest.raises(InputError, match="the statistics of the suspects hold NaN or infinity"):
        compared(low, high)


@given(odd=ODD)
@STEADY
def test_single_values_are_checked_too(odd):
    for function in (lambda: auc_interval(odd, 12, 12), lambda: images_needed(odd, 0.05)):
        with pytest.raises(InputError, match="NaN or infinity"):
            function()
    with pytest.raises(InputError, match="alpha is a false-alarm rate"):
        compared(numbers(0), numbers(1), alpha=odd)
    with pytest.raises(InputError, match="NaN or infinity"):
        judge(measured("one", np.array([odd])), measured("others", numbers(0)))
    with pytest.raises(InputError, match="NaN or infinity"):
        Store().add({"a": 1.0, "b": odd})
    assert detectable_auc(12, 12, 0.05) is not None


def test_nothing_cannot_be_compared():
    for function in (auc, rank_sum_p, permutation_p):
        with pytest.raises(InputError, match="is empty"):
            function(np.array([]), numbers(0))


@given(seed=st.integers(0, 10**6), shift=st.sampled_from([0.0, 0.5, 3.0]), alpha=st.sampled_from([0.05, 0.5, 0.95]))
@STEADY
def test_nobody_is_accused_both_ways(seed, shift, alpha):
    low, high = numbers(seed), numbers(seed + 1) + shift
    assert [compared(low, high, alpha).verdict, compared(high, low, alpha).verdict].count(LIKELY) <= 1
    assert [compared(low, low.copy(), alpha).verdict, compared(high, high.copy(), alpha).verdict].count(LIKELY) == 0


@given(seed=st.integers(0, 10**6))
@STEADY
def test_the_order_of_images_plays_no_part(seed):
    rng = np.random.default_rng(seed)
    sides = [measured(kind, rng.normal(size=COUNT), rng.normal(size=(COUNT, FEATURES))) for kind in ("low", "high")]
    mixed = [side.subset(rng.permutation(COUNT)) for side in sides]
    one, other = (compare(*some, settings=Settings("sima_mc"), fingerprint="f") for some in (sides, mixed))
    assert (one.p_value, one.permutation_p, one.rank_sum_p) == (other.p_value, other.permutation_p, other.rank_sum_p)
    assert one.comparability == other.comparability and one.auc == other.auc


def test_a_statistic_that_overflows_is_named_and_not_kept():
    """The network's answers are finite, their fourth powers are not."""
    model = CallableDenoiser(
        lambda x, t, c: torch.full_like(x, 1e30),
        gaussian.ABAR,
        empty=torch.zeros(1, 1, 1),
        latent_shape=(3, 32, 32),
        fingerprint="loud",
    )
    model.encode_image = lambda image: image  # type: ignore[attr-defined]
    model.decode = lambda latent: latent  # type: ignore[attr-defined]
    store = Store()
    some = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    with pytest.raises(NonFiniteError, match="sima of an image is NaN or infinity"):
        measure(model, some, settings=Settings("sima", draws=2), size=(32, 32), store=store)
    assert not store.numbers


def test_measured_numbers_may_be_changed_and_are_checked_again():
    some = measured("low", numbers(0))
    broken = replace(some, features=np.full((COUNT, FEATURES), np.nan))
    with pytest.raises(InputError, match="the features of images hold NaN"):
        compare(broken, measured("high", numbers(1)), settings=Settings("sima_mc"), fingerprint="f")
