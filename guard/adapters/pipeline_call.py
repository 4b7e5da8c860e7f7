"""A pipeline's own call, whether or not a guard stands before it, and what may be asked of it."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError
from ..printable import printable
from ..protocols import pipeline_of

ORIGINAL = "_cryptomnesia_original"  # where the class of a guarded pipeline keeps the one that it was made from


def original_call(pipe: Any) -> Callable[..., Any]:
    """Returns the class's own `__call__`, which no attached guard sees."""
    return vars(type(pipe)).get(ORIGINAL, type(pipe)).__call__


def parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a pipeline's call by name."""
    return inspect.signature(call).parameters


def starts_from_image(call: Callable[..., Any]) -> bool:
    """Returns whether images are changed by a pipeline's call, rather than made of noise."""
    return "strength" in parameters(call)


def needs_image(pipe: Any) -> bool:
    """Returns whether a pipeline's call is given an image beside the prompt, for a ControlNet or a T2I-Adapter."""
    return any(getattr(pipe, part, None) is not None for part in ("controlnet", "adapter"))


def offload_again(pipe: Any) -> None:
    """Moves what is kept off the device away again, after a call that was left before its end."""
    free = getattr(pipe, "maybe_free_model_hooks", None)
    if free is not None:
        free()


@contextmanager
def attention_as_found(pipe: Any) -> Iterator[None]:
    """After a call that was left before its end, takes back the attention that a pipeline sets for its duration.

    Pipelines with perturbed-attention guidance do so themselves at the end alone: the network would stay perturbed.
    """
    perturbs = hasattr(pipe, "pag_applied_layers")
    network: Any = (getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)) if perturbs else None
    before = dict(getattr(network, "attn_processors", {}))
    try:
        yield
    except BaseException:
        if before:
            network.set_attn_processor(before)
        raise


def initial_noise(pipe: Any, first: Tensor) -> Tensor:
    """Returns the noise (B, C, H, W) that a pipeline drew, from what its network got, which some schedulers scale."""
    scheduler = copy.deepcopy(pipe.scheduler)
    scale = torch.ones(1) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    if hasattr(scheduler, "scale_model_input"):
        scale = scheduler.scale_model_input(scale, scheduler.timesteps[0])
    return first / scale.to(first)


def first_timestep(denoiser: Denoiser, steps: int) -> int | None:
    """Returns the timestep at which a model's pipeline starts to sample, where it is not the model's own at pure noise.

    Args:
        denoiser: A model of a pipeline, whose scheduler tells.
        steps: The steps of the call.

    Raises:
        InputError: The model has no scheduler, or its scheduler cannot take so many steps.
    """
    pipe = pipeline_of(denoiser, "tell where sampling starts", "leave out steps").pipe
    if denoiser.prediction_type == "flow":
        return None  # at time 1, whatever the steps
    scheduler = copy.deepcopy(pipe.scheduler)
    try:
        scheduler.set_timesteps(steps)
    except (TypeError, ValueError, ArithmeticError) as error:
        reason = f"{type(scheduler).__name__} cannot take {steps} steps ({printable(error, 200)})"
        raise InputError(f"{reason}: give the number that you sample with") from error
    first = round(float(scheduler.timesteps[0]))
    return None if first == int(denoiser.levels.pure_noise.time.item()) else first
