"""A statistic learned from both folders: its p-value holds where nothing differs, and finds what does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryptomnesia.errors import InputError
from cryptomnesia.membership import LIKELY, NO_EVIDENCE, Measured, Settings, compare
from cryptomnesia.membership.learned import learn
from cryptomnesia.two_samples import auc

LAYERS, PLAIN = 30, 4
TRIALS, ROUNDS = 200, 19


def images(count: int, rng: np.random.Generator, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Images whose plain features explain most of what is measured, as sharpness does; members lie `shift` lower."""
    plain = rng.normal(size=(count, PLAIN))
    hard = plain[:, 0] + 0.5 * plain[:, 1] ** 3
    common = hard + rng.normal(size=count) * 0.7
    norms = common[:, None] * np.linspace(0.2, 1, LAYERS) + rng.normal(size=(count, LAYERS)) - shift
    return {"norms": norms, "statistic": common + rng.normal(size=count) - shift, "plain": plain}


def learned(one: dict[str, np.ndarray], other: dict[str, np.ndarray], **more: Any) -> Any:
    pairs = [part[name] for name in ("norms", "statistic", "plain") for part in (one, other)]
    return learn(*pairs, **({"rounds": ROUNDS} | more))


def test_no_more_false_alarms_than_promised():
    rng, found = np.random.default_rng(0), []
    for trial in range(TRIALS):
        one = learned(images(12, rng), images(25, rng), seed=trial)
        found.append((one.permutation_p, one.rank_sum_p))
    p_values = np.array(found)
    # of 200 at a rate of .05 more than 19 are a chance of one in 300; where the direction is wrong, p is 1
    assert 2 <= (p_values <= 0.05).sum(0).max() <= 19 and 0.3 < (p_values == 1).mean() < 0.7


def test_members_are_found_and_others_are_not_called_so():
    rng = np.random.default_rng(0)
    members, others = images(60, rng, 1.0), images(60, rng)
    found = learned(members, others, rounds=199)
    assert max(found.permutation_p, found.rank_sum_p) == 1 / 200
    assert auc(found.suspects, found.references) > 0.8
    back = learned(others, members, rounds=199)  # told apart just as well, and no training
    assert auc(back.suspects, back.references) > 0.8 and (back.permutation_p, back.rank_sum_p) == (1, 1)


def test_neither_order_nor_layers_that_say_nothing_play_a_part():
    rng = np.random.default_rng(1)
    one, other = images(15, rng, 0.5), images(20, rng)
    found = learned(one, other)
    turned = learned({k: v[::-1] for k, v in one.items()}, {k: v[::-1] for k, v in other.items()})
    assert np.allclose(turned.suspects[::-1], found.suspects) and np.allclose(turned.references[::-1], found.references)
    assert (turned.permutation_p, turned.rank_sum_p) == (found.permutation_p, found.rank_sum_p)
    one["norms"][:, 3] = other["norms"][:, 3] = -34.5  # a layer that nothing reaches
    assert np.isfinite(learned(one, other).suspects).all()


@pytest.mark.parametrize("name", ["norms", "statistic", "plain"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_no_number_that_is_not_finite_takes_part(name, odd):
    rng = np.random.default_rng(2)
    one, other = images(12, rng), images(12, rng)
    other[name].flat[5] = odd
    with pytest.raises(InputError, match="hold NaN or infinity"):
        learned(one, other)


def measured(kind: str, numbers: dict[str, np.ndarray]) -> Measured:
    names = tuple(f"{kind} {i}" for i in range(len(numbers["statistic"])))
    return Measured(names, numbers["statistic"], numbers["plain"], names, {}, 1, gradients=numbers["norms"])


def test_a_test_of_folders_learns():
    rng, how = np.random.default_rng(3), {"settings": Settings("sima_mc", features="gradients"), "fingerprint": "f"}
    members, others = measured("member", images(40, rng, 1.0)), measured("other", images(40, rng))
    found = compare(members, others, **how)
    assert found.verdict == LIKELY and found.p_value == max(found.permutation_p, found.rank_sum_p) <= 0.001
    assert found.to_dict()["settings"]["features"] == "gradients"
    assert not np.array_equal(found.suspects.statistic, members.statistic)  # what is shown is what was compared
    none = compare(measured("third", images(40, rng)), others, **how)
    assert none.verdict == NO_EVIDENCE and any("about 150 images" in note for note in none.notes())
    with pytest.raises(InputError, match="measure both alike"):
        compare(members, replace(others, gradients=None), **how)
    with pytest.raises(InputError, match="different networks"):
        compare(members, replace(others, gradients=others.gradients[:, :5]), **how)
