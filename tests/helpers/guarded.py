"""Small pipelines under guard: calibrations that flag all, none or the highest images, and calls as in `sample`."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, calibrate, from_spectra, measure_benign

from .pipelines import build
from .recording import network_of

BENIGN = [f"{a} {b}" for a in "abcdefghij" for b in "klmnopqrst"]
SHAPE = (4, 8, 8)  # latents of 16x16 pixels
GUARDED = ("sd1", "sd2", "sdxl", "sd3", "pixart", "pixart-sigma")
every_guarded = pytest.mark.parametrize("family", GUARDED)


@cache
def calibration(family: str, draws: int = 1) -> Calibration:
    denoiser = to_denoiser(build(family))
    return calibrate(denoiser, denoiser.encode(BENIGN), draws=draws, latent_shape=SHAPE)


def of_a_few(denoiser: Any, shape: tuple[int, ...] = SHAPE) -> Calibration:
    """A calibration of four prompts that count as a hundred, for tests that hang on no rate of false alarms."""
    few = BENIGN[::30]
    spectra = measure_benign(denoiser, denoiser.encode(few), range(len(few)), 1, 0, shape)  # type: ignore[arg-type]
    return from_spectra(denoiser, spectra.repeat(25, 1), draws=1, seed=0, alpha=0.01, shape=shape)  # type: ignore[arg-type]


def above(calibrated: Calibration, score: float) -> Calibration:
    """Flags whatever scores higher."""
    return replace(calibrated, scores=[score] * calibrated.n)


def flags_all(family: str, draws: int = 1) -> Calibration:
    return above(calibration(family, draws), -1e9)


def flags_none(family: str, draws: int = 1) -> Calibration:
    return above(calibration(family, draws), 1e9)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def call(pipe: Any, prompt: Any = "a cat", steps: int = 2, generator: Any = None, **options: Any) -> Any:
    """The pipeline's whole output, 16x16 pixels unless told otherwise; generator 0 by default."""
    defaults: dict[str, Any] = {"height": 16, "width": 16, "output_type": "pt"}
    if "PixArt" in type(pipe).__name__:
        defaults |= {"use_resolution_binning": False, "clean_caption": False}
    generator = seeded(0)[0] if generator is None else generator
    return pipe(prompt, num_inference_steps=steps, generator=generator, **(defaults | options))


def attached(guard: Guard, *args: Any, **options: Any) -> Any:
    """The output of one guarded call."""
    with guard.attached():
        return call(guard.denoiser.pipe, *args, **options)


def initial_noise(*seeds: int) -> torch.Tensor:
    """What the pipeline draws from generators with those seeds."""
    return torch.cat([torch.randn(1, *SHAPE, generator=generator) for generator in seeded(*seeds)])


class Counter(TorchFunctionMode):
    """Counts calls of a network, and their rows, by its first layer's weight: any hook would make another model."""

    def __init__(self, pipe: Any):
        super().__init__()
        self.weight, self.rows, self.calls = next(network_of(pipe).parameters()), 0, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, torch.nn.functional.linear) and args[1] is self.weight:
            self.rows, self.calls = self.rows + len(args[0]), self.calls + 1
        return func(*args, **(kwargs or {}))


def rows(pipe: Any, sample: Callable[[], Any]) -> tuple[Any, int]:
    """What sample() gives, and the rows that went through the network meanwhile."""
    with Counter(pipe) as counter:
        return sample(), counter.rows


def untouched(pipe: Any, original: type) -> bool:
    """Neither class nor hook of a guard is left."""
    network = network_of(pipe)
    return type(pipe) is original and not network._forward_hooks and not network._forward_pre_hooks
