"""Per-layer norms of the training loss's gradient: a model that was trained on an image has less left to learn from it.

The loss of an image is that of training, the squared error of the network's noise in noised copies of it. Its gradient
with respect to the weights of each layer is reduced to a norm as soon as it is computed, and dropped: there are never
more gradients in memory than one layer's, whatever the model and the number of images.

Reference: Pang et al. 2023, "White-box Membership Inference Attacks against Diffusion Models", arXiv 2308.06405.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from ..denoiser import Condition, Denoiser
from ..errors import InputError, NonFiniteError, NotApplicable
from ..memory import memory_needed
from ..progress import Progress
from ..protocols import network_of
from .noised import Questions, shared_noise

PAIR = 2  # rows of a call: a noise and its opposite
TINY = 1e-30  # a layer's squared norm where nothing reaches it


def layer_names(denoiser: Denoiser) -> tuple[str, ...]:
    """Returns the names of the L layers that `gradient_norms` tells of: modules with weights of their own, in order.

    Raises NotApplicable for a model whose weights have no gradients.
    """
    return tuple(_layers(_network(denoiser)))


def gradient_norms(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
    *,
    draws: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Returns the log of each layer's gradient norm for each image; smaller = more member-like, as a tendency.

    Noise comes in pairs of opposite sign, each pair in one call forth and back, of two rows; a layer's number is the
    log of the root mean square over pairs and timesteps. T * draws rows per image go forth and back. Weights'
    `requires_grad`, `grad` and hooks, the network's mode and its dtype are afterwards as they were, also after errors;
    gradient checkpointing is taken as it is set. Not for two threads at once on one network.

    Args:
        denoiser: The model, whose network runs in torch.
        latents: Clean latents (B, C, H, W).
        timesteps: T times, in the model's own unit.
        condition: The images' prompts, one row each, or one for all; by default the empty prompt.
        draws: Noised copies of each image at each timestep; even, at least 2.
        seed: The seed of the noise, which all images share.
        progress: Called with the numbers of images done and of all.

    Returns:
        (B, L) float64 on the CPU, in the order of `layer_names`.

    Raises:
        InputError: Latents, timesteps or conditions that do not fit the model, NaN in the latents, odd draws.
        NotApplicable: The weights have no gradients: an ONNX network, whole numbers, weights kept elsewhere.
        NonFiniteError: A gradient is NaN or infinity.
        OutOfMemory: Two rows with their graph do not fit.
    """
    if draws < PAIR or draws % PAIR:
        raise InputError(f"gradients need an even number of noise draws, not {draws}: each comes with its opposite")
    if not denoiser.differentiable:
        raise NotApplicable("this model runs outside of torch and has no gradients: load its torch weights")
    with torch.inference_mode(False), torch.enable_grad():
        # copies: what was made in inference mode takes part in no graph
        questions = Questions(denoiser, latents.detach().clone(), timesteps, condition)
        noise = shared_noise(questions.latents, draws, seed, pairs=True)
        ask = _Pairs(questions, noise)
        # hosts put a network in its place, and make its weights fit for gradients, when it is first asked for some
        with suppress(RuntimeError):  # which weights of inference mode raise: `_layers` says so
            ask.error(0, 0, 0)
        network = _network(denoiser)
        layers = _layers(network)
        found = torch.zeros(len(latents), len(layers), dtype=torch.float64)
        with _listening(layers) as norms:
            for image in range(len(latents)):
                found[image] = _squared(ask, image, norms, len(questions.times), draws // PAIR)
                if progress:
                    progress(image + 1, len(latents))
    return found.clamp_min(TINY).log() / 2


def _squared(ask: "_Pairs", image: int, norms: "_Norms", times: int, pairs: int) -> Tensor:
    """Mean over timesteps and pairs of each layer's squared norm, (L,)."""
    total = torch.zeros_like(norms.squared)
    for time in range(times):
        for pair in range(pairs):
            norms.squared.zero_()
            with memory_needed(
                "the device has no memory for the gradients of two rows: choose a smaller size or dtype"
            ):
                ask.error(image, time, pair).square().flatten(1).sum(1).mean().backward()
            if not torch.isfinite(norms.squared).all():
                raise NonFiniteError("a gradient is NaN or infinity: load the model in float32 or bfloat16")
            total += norms.squared
    return total / (times * pairs)


class _Pairs:
    """Errors of the network's noise for one image at one level under a noise and its opposite."""

    def __init__(self, questions: Questions, noise: Tensor):
        self.questions, self.noise = questions, noise
        tensors = {name: tensor.detach().clone() for name, tensor in questions.condition.tensors.items()}
        self.condition = Condition(**tensors)

    def error(self, image: int, time: int, pair: int) -> Tensor:
        """(2, C, H, W) float32, with its graph where gradients are on."""
        added = self.noise[pair * PAIR : pair * PAIR + PAIR]
        level = self.questions.levels[[time] * PAIR]
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (level.alpha, level.sigma))
        x = alpha * self.questions.latents[[image]] + sigma * added
        grad = torch.is_grad_enabled()
        # hosts, and checkpoints that recompute, keep a graph only where an input asks for it
        x.requires_grad_(grad)
        prompt = self.condition[[0 if len(self.condition) == 1 else image]]
        return self.questions.denoiser.predict(x, level, prompt, grad=grad).noise - added


class _Norms:
    """Squared norms of the gradients that the last way back came by, (L,) float64."""

    def __init__(self, count: int):
        self.squared = torch.zeros(count, dtype=torch.float64)

    def taker(self, layer: int) -> Callable[[Tensor], None]:
        """What is called when a weight's gradient is there: it is added to its layer's, and dropped."""

        def take(weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            if gradient is not None:
                norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32)
                self.squared[layer] += float(norm) ** 2

        return take


@contextmanager
def _listening(layers: dict[str, list[nn.Parameter]]) -> Iterator[_Norms]:
    """Within the block, every weight's gradient is reduced to a norm once it is computed; all else is put back."""
    weights = [(weight, number) for number, owned in enumerate(layers.values()) for weight in owned]
    before = [(weight, weight.requires_grad, weight.grad) for weight, _ in weights]
    norms, hooks = _Norms(len(layers)), []
    try:
        for weight, number in weights:
            weight.grad = None
            weight.requires_grad_(True)
            hooks.append(weight.register_post_accumulate_grad_hook(norms.taker(number)))
        yield norms
    finally:
        for hook in hooks:
            hook.remove()
        for weight, wanted, gradient in before:
            weight.grad = None
            weight.requires_grad_(wanted)
            weight.grad = gradient


def _network(denoiser: Denoiser) -> nn.Module:
    network = network_of(denoiser)
    return getattr(network, "_orig_mod", network)  # without its compiler, as it is asked


def _layers(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Weights by the module that owns them, each once."""
    seen: set[int] = set()
    layers: dict[str, list[nn.Parameter]] = {}
    for name, module in network.named_modules():
        own = [w for w in module.parameters(recurse=False) if id(w) not in seen and w.is_floating_point()]
        seen.update(map(id, own))
        if own:
            layers[name] = own
    weights = [weight for own in layers.values() for weight in own]
    if not weights:
        raise NotApplicable("this network has no weights with gradients (quantised, or none): load it in 16 or 32 bits")
    if any(weight.is_meta for weight in weights):
        raise NotApplicable(
            "weights are moved in and out between calls, where gradients cannot follow: use "
            "pipe.enable_model_cpu_offload() or none"
        )
    if any(weight.is_inference() for weight in weights):
        raise NotApplicable(
            "the weights were made in inference mode and have no gradients: load the model outside of it"
        )
    return layers
