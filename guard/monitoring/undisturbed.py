"""Asking networks in the middle of their training, and leaving everything as it was."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def undisturbed(modules: Sequence[torch.nn.Module], device: torch.device) -> Iterator[None]:
    """Within the block modules answer as in evaluation, and nothing is drawn or cast on the training's account.

    Afterwards, also after an error, every layer trains or rests as before, and the states of all generators (Python's,
    numpy's, torch's on the CPU and the device) are those of before.

    Args:
        modules: The networks that are asked.
        device: Where they compute.
    """
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    python, numpy = random.getstate(), np.random.get_state()  # whatever the training draws from
    with ExitStack() as undo:
        undo.enter_context(_generators(device))
        undo.callback(np.random.set_state, numpy)
        undo.callback(random.setstate, python)
        for layer, training in modes:
            undo.callback(setattr, layer, "training", training)
            layer.training = False  # `eval` would also run what adapters do then, such as merging weights
        # weights that autocast has cast without a graph would be taken for the training's own
        undo.callback(torch.clear_autocast_cache)
        undo.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _generators(device: torch.device) -> Any:
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    index = device.index
    if index is None:
        index = getattr(torch, device.type).current_device() if device.type != "mps" else 0
    return torch.random.fork_rng(devices=[index], device_type=device.type)
