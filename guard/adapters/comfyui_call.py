"""One question to a ComfyUI model: what clean latents does it see in noisy ones?

Asked through CFGGuider, which loads and patches the model (LoRAs, object patches), registers hooks, prepares
ControlNets and areas, manages memory and cleans up; in the place of a sampler stands a single calc_cond_batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..memory import is_out_of_memory

Conditioning = list[Any]


def clean_latents(model: Any, x: Tensor, sigma: Tensor, conditioning: Conditioning, *, grad: bool = False) -> Tensor:
    """Returns the model's clean latents (B, C, H, W) float32, before any guidance.

    Args:
        model: ComfyUI's MODEL.
        x: Noisy latents in ComfyUI's own scale, (B, C, H, W) float32.
        sigma: ComfyUI's sigma of each row, (B,).
        conditioning: Texts with one row, or B.
        grad: Keep the graph, of x and of the texts.

    Raises:
        RuntimeError: Not even one row fits; without grad, batches are halved until they do.
    """
    if grad:
        _load(model)
        return _ask(model, x, sigma, conditioning, grad=True)
    # inference mode, as ComfyUI itself runs its models; what comes out must serve gradients later
    with torch.inference_mode():
        found = _halving(model, x, sigma, conditioning)
    with torch.inference_mode(False):
        return found.clone()


def _halving(model: Any, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
    try:
        return _ask(model, x, sigma, conditioning, grad=False)
    except (RuntimeError, MemoryError) as error:
        if len(x) == 1 or not is_out_of_memory(error):
            raise
    import comfy.model_management

    comfy.model_management.soft_empty_cache()
    half = len(x) // 2
    parts = (slice(0, half), slice(half, None))
    return torch.cat([_halving(model, x[rows], sigma[rows], _rows(conditioning, rows, len(x))) for rows in parts])


def _rows(conditioning: Conditioning, rows: slice, count: int) -> Conditioning:
    """Those rows of every tensor that has one for each."""

    def part(value: Any) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value

    return [[part(text), {name: part(value) for name, value in options.items()}] for text, options in conditioning]


def _load(model: Any) -> None:
    """Patches weights in inference mode, since ComfyUI writes into weights that were made in it."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])


def _ask(model: Any, x: Tensor, sigma: Tensor, conditioning: Conditioning, *, grad: bool) -> Tensor:
    import comfy.model_management
    import comfy.samplers

    found: list[Tensor] = []

    class Question(comfy.samplers.Sampler):
        def sample(self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], *arguments: Any, **_: Any):
            comfy.model_management.throw_exception_if_processing_interrupted()
            network = model_wrap.inner_model.diffusion_model
            if grad:
                _make_differentiable(network, x.device)
            conds = [model_wrap.conds["positive"]]
            options = extra_args["model_options"]
            with _training() if grad else nullcontext(), _graph(network) if grad else nullcontext():
                found.extend(comfy.samplers.calc_cond_batch(model_wrap.inner_model, conds, x, sigma, options))
            return torch.zeros_like(x)

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": conditioning})
    empty = torch.zeros_like(x, requires_grad=False)
    # a mean-flow network is also told where the step ends that starts here: in the same place, it gives the velocity
    sigmas = torch.cat([sigma, sigma[-1:]]).detach()
    guider.sample(x.detach(), empty, Question(), sigmas, disable_pbar=True, seed=0)
    return found[0].float()


@contextmanager
def _training() -> Iterator[None]:
    """ComfyUI's own switch: its fused kernels have no gradients."""
    import comfy.model_management

    switches: Any = comfy.model_management
    before = getattr(switches, "in_training", False)
    switches.in_training = True
    try:
        yield
    finally:
        switches.in_training = before


@contextmanager
def _graph(network: torch.nn.Module) -> Iterator[None]:
    """Keeps copies for the way back: networks add to what they have just normalized, in place."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        return tensor if tensor.untyped_storage().data_ptr() in weights else tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def _make_differentiable(network: torch.nn.Module, device: torch.device) -> None:
    """Weights that were made in inference mode refuse to take part in a graph; equal copies take their place."""
    with torch.inference_mode(False):
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None and weight.is_inference() and weight.device == device:
                    module._parameters[name] = torch.nn.Parameter(weight.clone(), requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_inference():
                    module._buffers[name] = buffer.clone()
