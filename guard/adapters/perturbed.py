"""Perturbed-attention guidance: pipelines whose network is asked a third time, with the attention of some layers off.

While such a pipeline samples, the attention of these layers takes the last third or half of the rows for the perturbed
ones, whoever asks. The check asks the network as it is without that.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..errors import NotApplicable
from .diffusers import PipelineDenoiser
from .pixart import PixArtDenoiser
from .stable_diffusion import StableDiffusionDenoiser, StableDiffusionXLDenoiser
from .stable_diffusion_3 import StableDiffusion3Denoiser

_PERTURBED = "PAG"  # how the names of the attention processors begin that perturb


class PerturbedDenoiser(PipelineDenoiser):
    """What the pipelines of a family with perturbed-attention guidance have in common, before the family's own class.

    A call of the pipeline has the rows [negative, positive, perturbed], or [positive, perturbed] without guidance; the
    perturbed ones, from which the sampler leads away, are left out here.
    """

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        with _unperturbed(self.network):
            return super().output(x, time, condition)  # type: ignore[safe-super]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        if any(map(_leaves_out_norms, _perturbed_layers(self.network))):
            raise NotApplicable(
                "the perturbed attention leaves out a normalization that this network has (qk_norm), so that another "
                "network samples than the one that is checked: set pag_scale=0"
            )
        x, time, condition, raw = super().read_call(arguments, output)
        kept = self._kept_rows(x)
        time = torch.as_tensor(time)
        return x[:kept], time[:kept] if time.ndim and len(time) == len(x) else time, condition[:kept], raw[:kept]

    def _kept_rows(self, x: Tensor) -> int:
        """How many of a call's rows, from the first, are not perturbed."""
        if not getattr(self.pipe, "do_perturbed_attention_guidance", False):
            return len(x)
        names = {type(layer.processor).__name__ for layer in _perturbed_layers(self.network)}
        guided = any(name.startswith(f"{_PERTURBED}CFG") for name in names)
        if not names:  # the pipeline's call is over; its branches are asked about the same latents
            third = len(x) // 3
            guided = len(x) % 3 == 0 and torch.equal(x[:third], x[third : 2 * third])
        return len(x) * 2 // 3 if guided else len(x) // 2

    @property
    def fingerprint(self) -> str:
        with _unperturbed(self.network):
            return super().fingerprint


class StableDiffusionPAGDenoiser(PerturbedDenoiser, StableDiffusionDenoiser):
    """StableDiffusionPAGPipeline."""


class StableDiffusionXLPAGDenoiser(PerturbedDenoiser, StableDiffusionXLDenoiser):
    """StableDiffusionXLPAGPipeline."""


class StableDiffusion3PAGDenoiser(PerturbedDenoiser, StableDiffusion3Denoiser):
    """StableDiffusion3PAGPipeline."""


class PixArtPAGDenoiser(PerturbedDenoiser, PixArtDenoiser):
    """PixArtSigmaPAGPipeline."""


def _perturbed_layers(network: Any) -> list[Any]:
    modules = getattr(network, "_orig_mod", network).modules()
    return [m for m in modules if type(getattr(m, "processor", None)).__name__.startswith(_PERTURBED)]


def _leaves_out_norms(layer: Any) -> bool:
    """Whether queries and keys that are normalized in the plain attention are not in the perturbed one."""
    names = type(layer.processor).__call__.__code__.co_names
    return getattr(layer, "norm_q", None) is not None and "norm_q" not in names


@contextmanager
def _unperturbed(network: Any) -> Iterator[None]:
    """Within the block, every layer of the network attends as it was made to."""
    before = [(layer, layer.processor) for layer in _perturbed_layers(network)]
    try:
        for layer, processor in before:
            layer.processor = _plain(processor)
        yield
    finally:
        for layer, processor in before:
            layer.processor = processor


def _plain(processor: Any) -> Any:
    """What attends as this processor does to all but the perturbed rows, from the module that it comes from."""
    kinds = sys.modules[type(processor).__module__]
    joint = "Joint" in type(processor).__name__
    return (kinds.JointAttnProcessor2_0 if joint else kinds.AttnProcessor2_0)()
