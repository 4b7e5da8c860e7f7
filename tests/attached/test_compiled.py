"""A network that was compiled in place is guarded like any other, and its graph stays whole."""

import copy

import pytest
import torch

from cryptomnesia import Guard, MemorizationBlocked
from cryptomnesia.errors import UnverifiedWarning

from ..helpers.guarded import attached, call, flags_all, flags_none
from ..helpers.pipelines import build

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's compiler


@pytest.fixture(scope="module")
def compiled():
    torch._dynamo.reset()
    pipe = build("sd1")
    pipe.unet.compile(backend="eager", fullgraph=True)
    yield pipe
    torch._dynamo.reset()


def test_images_and_reports_are_those_of_a_network_that_is_not_compiled(compiled):
    plain, made = call(compiled).images, compiled.unet._compiled_call_impl
    out = attached(Guard(compiled, flags_none("sd1")))
    assert torch.equal(plain, out.images) and compiled.unet._compiled_call_impl is made
    same = attached(Guard(build("sd1"), flags_none("sd1")))
    assert out.memorization[0].verdict == "clear"
    assert out.memorization[0].score == pytest.approx(same.memorization[0].score, rel=1e-4)


def test_what_is_flagged_is_blocked_before_the_first_step(compiled):
    made = compiled.unet._compiled_call_impl
    with pytest.raises(MemorizationBlocked):
        attached(Guard(compiled, flags_all("sd1"), policy="block"))
    assert compiled.unet._compiled_call_impl is made


def test_calls_round_the_guard_are_noticed_and_nested_hooks_leave_nothing(compiled):
    plain, made = call(compiled).images, compiled.unet._compiled_call_impl
    other = copy.copy(compiled)
    with Guard(compiled, flags_none("sd1")).attached():
        call(compiled)
        other.__class__ = type(build("sd1"))
        with pytest.warns(UnverifiedWarning, match="called round its guard"):
            assert torch.equal(call(other).images, plain)
    assert compiled.unet._compiled_call_impl is made


def test_it_can_be_located(compiled):
    guard = Guard(compiled, flags_all("sd1"))
    assert guard.locate("a cat", steps=3, height=16, width=16).map.shape == (16, 16)
