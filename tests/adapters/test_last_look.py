"""A remembered look says what a new one would, whatever was changed meanwhile, and is taken anew only then."""

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from cryptomnesia.adapters import last_look, to_denoiser
from cryptomnesia.adapters.last_look import LastLook
from cryptomnesia.adapters.modules import glance, peculiarities
from cryptomnesia.adapters.network_calls import watched
from cryptomnesia.adapters.offloaded import first_weight
from cryptomnesia.protocols import pipeline_of

from ..helpers.pipelines import build


class Doubling(AttnProcessor2_0):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().__call__(*args, **kwargs)


class Convolution(torch.nn.Conv2d):
    pass


def first(net: Any, kind: type) -> Any:
    return next(layer for layer in net.modules() if type(layer) is kind)


def patched(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    return type(self).forward(self, x, *args, **kwargs) * 1.5


def set_forward(net: Any) -> None:
    layer = first(net, torch.nn.Conv2d)
    layer.forward = MethodType(patched, layer)


def set_child(net: Any) -> None:
    net.mid_block.resnets[0].nonlinearity = torch.nn.Tanh()


def set_processor(net: Any) -> None:
    net.set_attn_processor(Doubling())


def set_list(net: Any) -> None:
    net.mid_block.resnets[0].steps = [1, 2]


def longer_list(net: Any) -> None:
    net.mid_block.resnets[0].steps.append(3)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "an attribute": lambda net: setattr(first(net, torch.nn.GroupNorm), "eps", 0.3),
    "one more attribute": lambda net: setattr(net.mid_block, "strength", 2.0),
    "FreeU": lambda net: net.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "a hook": lambda net: net.register_forward_hook(lambda module, args, out: out),
    "a hook of a layer": lambda net: first(net, torch.nn.Linear).register_forward_pre_hook(lambda m, a: None),
    "a processor": set_processor,
    "a forward": set_forward,
    "a child": set_child,
    "a class": lambda net: setattr(first(net, torch.nn.Conv2d), "__class__", Convolution),
    "a layer less": lambda net: delattr(net.mid_block.resnets[0], "dropout"),
    "a list": set_list,
    "a list's length": longer_list,
    "a tensor for a number": lambda net: setattr(first(net, torch.nn.GroupNorm), "eps", torch.ones(3)),
    "an array for a number": lambda net: setattr(first(net, torch.nn.LayerNorm), "eps", np.ones(3)),
    "the configuration": lambda net: net.register_to_config(norm_num_groups=2),
    "drops out": lambda net: (setattr(first(net, torch.nn.Dropout), "p", 0.5), net.train()),
}


@pytest.fixture
def net() -> Any:
    return copy.deepcopy(build("sd1").unet)


@pytest.fixture
def looks(monkeypatch) -> list[Any]:
    """Grows with every close look."""
    taken: list[Any] = []
    monkeypatch.setattr(last_look, "peculiarities", lambda module: taken.append(module) or peculiarities(module))
    return taken


def test_every_change_is_seen_one_after_the_other(net):
    """Also where changes meet: the reference is a close look of its own each time."""
    last, before = LastLook(), peculiarities(net)
    assert last.peculiarities(net) == before == []
    for name, change in CHANGES.items():
        change(net)
        found = peculiarities(net)
        assert found != before, name
        assert last.peculiarities(net) == found == last.peculiarities(net), name
        before = found


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "a list's length"])
def test_a_change_costs_one_look_and_what_stays_costs_none(net, looks, name):
    last = LastLook()
    assert [last.peculiarities(net) for _ in range(3)] == [[]] * 3 and len(looks) == 1
    CHANGES[name](net)
    assert last.peculiarities(net) == peculiarities(net) != []
    assert len(looks) == 2


def test_a_patched_class_is_seen(net, monkeypatch):
    last = LastLook()
    last.peculiarities(net)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.GroupNorm, "forward", lambda self, x: x)
        assert last.peculiarities(net) == peculiarities(net) != []
    assert last.peculiarities(net) == []
    with monkeypatch.context() as patch:
        patch.setattr(AttnProcessor2_0, "__call__", lambda self, attn, x, *a, **k: x)
        assert last.peculiarities(net) == peculiarities(net) != []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda m, a, out: None)
    try:
        assert last.peculiarities(net) == peculiarities(net) != []
    finally:
        handle.remove()


def test_what_is_exact_and_who_only_looks_change_nothing(net, looks):
    last = LastLook()
    last.peculiarities(net)
    net.set_attn_processor(AttnProcessor())  # the same by another way
    assert last.peculiarities(net) == []
    before = len(looks)
    pipe = build("sd1")
    pipe.unet = net
    with watched(pipeline_of(to_denoiser(pipe)), lambda arguments, output: None):  # as an attached guard
        assert last.peculiarities(net) == [] and len(looks) == before


def test_several_modules_are_remembered_and_few_kept(looks):
    nets = [torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(6)]
    last = LastLook()
    for _ in range(2):
        for net in nets[:3]:
            last.peculiarities(net)
    assert len(looks) == 3
    for net in nets:
        last.peculiarities(net)
    assert len(last._looks) == 4


def test_a_glance_sees_every_weight_and_buffer(net):
    before = glance(net)
    assert glance(net) == before and sum(map(len, before)) > 0
    for name, tensor in net.state_dict(keep_vars=True).items():
        kept = tensor.data.clone()
        tensor.data.flatten()[0] += 1  # as merges do, past every counter
        assert glance(net) != before, name
        tensor.data.copy_(kept)
    assert glance(net) == before
    turned = copy.deepcopy(net).to(memory_format=torch.channels_last)
    seen = glance(turned)
    turned.conv_in.weight.data[0, 0, 0, 0] += 1
    assert glance(turned) != seen


def test_the_first_weight_tells_device_and_dtype_as_diffusers_does(net):
    for dtype in (torch.float32, torch.bfloat16):
        net.to(dtype)
        weight = first_weight(net)
        assert weight is not None and (weight.dtype, weight.device) == (net.dtype, net.device)
    net.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert first_weight(net) is None and net.dtype == torch.float32  # asked of diffusers
    assert first_weight(torch.nn.Tanh()) is None and first_weight("no module") is None
