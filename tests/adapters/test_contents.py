"""Digests of what Python values do: equal only where code, settings and tensors are."""

import functools
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia.adapters.contents import Contents

AMOUNT = 2.0


def digest(value: Any) -> str:
    contents = Contents()
    found = contents.digest(value)
    assert not contents.unreadable
    return found


def closing_over(weight: Any):
    def patch(x):
        return x * weight

    return patch


class Patch:
    def __init__(self, weight: Any):
        self.weight = weight

    def __call__(self, x):
        return x * self.weight

    def method(self, x):
        return self(x)


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight: Any):
        self.weight = weight


def local_class(weight: Any):
    class Local:
        def __call__(self, x):
            return x * weight

    return Local()


def nested(weight: Any):
    return lambda x: (lambda y: y * weight)(x)


def default(weight: Any):
    def patch(x, weight=weight):
        return x * weight

    return patch


def keyword(weight: Any):
    def patch(x, *, weight=weight):
        return x * weight

    return patch


def attribute(weight: Any):
    def patch(x):
        return x * patch.weight  # type: ignore[attr-defined]

    patch.weight = weight  # type: ignore[attr-defined]
    return patch


def module(weight: Any):
    made = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(made.weight, float(weight))
    return made


def scaled(weight: Any):
    made = torch.nn.Identity()
    made.scale = weight
    return made


def hooked(weight: Any):
    made, hook = torch.nn.Identity(), closing_over(weight)
    made.register_forward_hook(lambda module, inputs, output: hook(output))
    return made


MAKERS = [
    closing_over,
    Patch,
    Slotted,
    local_class,
    nested,
    default,
    keyword,
    attribute,
    module,
    scaled,
    hooked,
    lambda weight: functools.partial(max, weight),
    lambda weight: Patch(weight).method,
    lambda weight: SimpleNamespace(inner=[{"deep": (Patch(weight),)}]),
    lambda weight: {frozenset({"a", weight}): 1},
    lambda weight: np.full(3, weight),
    lambda weight: torch.full((3,), float(weight)),
    lambda weight: torch.full((3,), int(weight), dtype=torch.int8),
    lambda weight: closing_over(torch.tensor([[float(weight)]])),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_setting_makes_the_difference(make):
    assert digest(make(3)) == digest(make(3)) != digest(make(0))


def test_code_makes_the_difference():
    assert digest(lambda x: x * 2) == digest(lambda x: x * 2) != digest(lambda x: x * 3)
    assert digest(lambda x: x.cos()) != digest(lambda x: x.sin())


def test_a_value_that_the_code_looks_up_makes_the_difference(monkeypatch: pytest.MonkeyPatch):
    def patch(x):
        return x * AMOUNT

    before = digest(patch)
    monkeypatch.setitem(globals(), "AMOUNT", 3.0)
    assert digest(patch) != before


def test_one_value_among_a_million_makes_the_difference():
    mask = torch.zeros(1024, 1024)
    before = digest(mask)
    mask[511, 3] = 1
    assert digest(mask) != before


def test_where_a_tensor_stands_makes_the_difference():
    first, second = torch.zeros(2), torch.ones(2)
    assert digest([first, second]) != digest([second, first]) and digest({"a": first}) != digest({"b": first})
    assert digest(first) != digest(first.half()) != digest(first.view(2, 1).half())
    assert digest([first, first]) != digest([first, second])


def test_devices_and_the_order_of_a_dict_make_none():
    assert digest(torch.device("cpu")) == digest(torch.device("meta"))
    assert digest({"a": 1, 2: 3}) == digest({2: 3, "a": 1}) and digest({"a", 1}) == digest({1, "a"})


def test_values_may_hold_themselves():
    def ring() -> list:
        found: list = [1]
        found.append(found)
        return found

    def recursive(depth: int = 0):
        return recursive(depth + 1)

    assert digest(ring()) == digest(ring()) != digest([1, [1]])
    assert digest(recursive) == digest(recursive)


def test_what_a_function_keeps_between_calls_is_no_setting():
    def recorder(weight: float):
        kept = None

        def record(x):
            nonlocal kept
            kept = x
            return x * weight

        return record

    patch = recorder(1.0)
    before = digest(patch)
    patch(torch.ones(2))
    assert digest(patch) == before == digest(recorder(1.0)) != digest(recorder(2.0))


def deep(levels: int = 5000) -> list:
    return functools.reduce(lambda inner, _: [inner], range(levels), [])


def test_nested_too_deep_equals_nothing():
    contents = Contents()
    assert contents.digest(deep()) != contents.digest(deep()) and contents.unreadable == ["list"] * 2


UNREADABLE = [threading.Lock(), torch.Generator(), iter([1]), torch.empty(2, device="meta"), torch.eye(2).to_sparse()]


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_read_equals_nothing(value: Any):
    contents = Contents()
    assert contents.digest(Patch(value)) != contents.digest(Patch(value))
    assert contents.unreadable == [type(value).__qualname__] * 2
