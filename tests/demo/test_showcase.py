"""What the demo samples: prompts of the reported split, privately and repeatably."""

import numpy as np
import torch

from cryptomnesia.demo import showcase

from ..helpers import pipelines


def test_showcase_prompts_are_of_the_reported_split():
    chosen = showcase.prompts()
    assert len(chosen) == 12 and {caption.split for caption in chosen} == {"eval"}
    assert sum(caption.kind in ("verbatim", "template") for caption in chosen) == 5


def test_sampling_is_private_and_repeatable():
    pipe = pipelines.build("sd1")
    config, state = dict(pipe.scheduler.config), torch.random.get_rng_state()
    calls = []
    first = showcase.sample(pipe, ["a", "b", "c", "d", "e"], 2, steps=2, progress=lambda *told: calls.append(told))
    again = showcase.sample(pipe, ["e"], 2, steps=2)
    assert first.shape == (5, 2, 16, 16, 3) and first.dtype == np.uint8
    assert calls[-1] == (10, 10) and calls == sorted(calls)
    assert np.abs(first[4].astype(int) - again[0]).max() <= 1
    assert not np.array_equal(first[0, 0], first[0, 1])
    assert torch.equal(torch.random.get_rng_state(), state) and dict(pipe.scheduler.config) == config
