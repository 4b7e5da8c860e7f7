"""What a computation has in memory at once, counted by hand, and by torch's own profiler."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from benchmarks.hollow import hollow
from benchmarks.live_memory import peak_bytes
from benchmarks.true_shapes import SHAPES

from ..helpers.pipelines import unet

DEVICES = ("cpu", "meta")


def peak(work, device):
    return peak_bytes(work, flash=device == "meta")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_two_layers_by_hand(device, dtype):
    layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).to(device, dtype)
    found = peak(lambda: layers(torch.ones(3, 4, dtype=dtype, device=device)), device)
    assert found == 3 * (4 + 8 + 2) * dtype.itemsize  # input, hidden and output at once


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_no_more_referred_to_is_gone(device):
    layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(2, 16)).to(device)
    assert peak(lambda: layers(torch.ones(3, 4, device=device)), device) == 3 * (4 + 2 + 16) * 4


@pytest.mark.parametrize("device", DEVICES)
def test_views_and_what_was_there_before_cost_nothing(device):
    weight = torch.ones(64, 64, device=device)
    assert peak(lambda: weight.t()[:8].add_(1), device) == 0
    assert peak(lambda: (weight + 1).t().flatten()[0], device) == 2 * 64 * 64 * 4  # a copy, since it was turned


@pytest.mark.parametrize("device", DEVICES)
def test_attention_has_no_matrix_of_scores(device):
    def attend():
        query, key, value = torch.ones(3, 1, 2, 512, 8, device=device)  # one storage
        return scaled_dot_product_attention(query, key, value)

    numbers = 2 * 512 * 8  # of each of the three, and of the answer; one more per query and head
    assert peak(attend, device) == 4 * (4 * numbers + 2 * 512)


def _step(device):
    network: Any = unet(block_out_channels=(16, 32)).eval()
    network.to(device)

    def step():
        time, text = torch.full((2,), 5, device=device), torch.ones(2, 77, 16, device=device)
        return network(torch.ones(2, 4, 32, 32, device=device), time, text).sample

    return step


def test_a_network_takes_what_torch_hands_out():
    traced = peak(_step("cpu"), "cpu")
    assert traced == peak(_step("meta"), "meta")
    step, live, most = _step("cpu"), 0, 0
    watch = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with torch.no_grad(), watch:
        step()
    for event in watch.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    assert traced <= most <= 1.1 * traced  # an operation's own workspace is not followed


@pytest.mark.parametrize(("name", "weights"), [("SD 1.5, 512 px", 859_520_964), ("SDXL, 1024 px", 2_567_463_684)])
def test_networks_have_the_published_number_of_weights(name, weights):
    assert SHAPES[name].parameters == weights


@pytest.mark.parametrize("name", SHAPES)
def test_hollow_pipelines_ask_as_the_true_ones(name):
    shape = SHAPES[name]
    pipe, asked = hollow(name)
    with asked.watched() as seen:
        pipe("a cat", num_inference_steps=2, height=256, width=256, output_type="latent")
    assert set(seen.calls) == {(shape.branches, shape.tokens)}
    assert pipe.vae_scale_factor * shape.latent[1] == shape.pixels
