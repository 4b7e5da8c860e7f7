"""Norms of gradients: exact, one layer's gradient at a time, and the user's model as it was."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError, NonFiniteError, NotApplicable
from cryptomnesia.signals.gradient_norms import gradient_norms, layer_names
from cryptomnesia.signals.noised import shared_noise

from ..helpers import gaussian, toy
from ..helpers.pipelines import build

SHAPE = (2, 4, 4)


class Network(nn.Module):
    """Two layers, one of them with a bias, and one that nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = (
            nn.Conv2d(2, 5, 3, padding=1),
            nn.Conv2d(5, 2, 1, bias=False),
            nn.Linear(2, 2),
        )

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x))) + condition.mean((1, 2)).view(-1, 1, 1, 1)


def denoiser_of(network: Any) -> CallableDenoiser:
    return CallableDenoiser(network, gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def latents(count: int = 3) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def by_hand(network: Network, x0: Tensor, prompt: float, times: list[int], draws: int) -> Tensor:
    """The same by torch's own gradients, all of them at once."""
    total = torch.zeros(3, dtype=torch.float64)
    noise = shared_noise(x0, draws, 5, pairs=True)
    for time in times:
        alpha, sigma = (float(v) for v in gaussian.levels(torch.tensor([time]), "epsilon"))
        for pair in noise.split(2):
            answer = network(alpha * x0 + sigma * pair, torch.tensor([time] * 2), torch.full((2, 1, 1), prompt))
            loss = (answer - pair).square().sum((1, 2, 3)).mean()
            weights = [*network.first.parameters(), network.second.weight]
            bias, weight, second = (g.double().square().sum() for g in torch.autograd.grad(loss, weights))
            total += torch.stack([bias + weight, second, torch.zeros_like(second)])
    return (total / (len(times) * draws / 2)).clamp_min(1e-30).log() / 2


def test_norms_are_those_of_all_gradients_at_once(network):
    denoiser, z, steps = denoiser_of(network), latents(), []
    prompts = torch.tensor([0.0, 1.0, -2.0]).view(3, 1, 1)
    found = gradient_norms(denoiser, z, [100, 300], prompts, draws=4, seed=5, progress=lambda *step: steps.append(step))
    assert layer_names(denoiser) == ("first", "second", "unused") and steps == [(1, 3), (2, 3), (3, 3)]
    for row, prompt in enumerate([0.0, 1.0, -2.0]):
        wanted = by_hand(network, z[[row]], prompt, [100, 300], 4)
        assert torch.allclose(found[row], wanted, rtol=1e-5)
    alone = gradient_norms(denoiser, z[1:2], [100, 300], prompts[1:2], draws=4, seed=5)
    assert torch.equal(alone[0], found[1])  # whatever the others are


def state(network: nn.Module) -> list[Any]:
    return [
        (
            w.requires_grad,
            None if w.grad is None else w.grad.clone(),
            w.dtype,
            w.detach().clone(),
            len(w._backward_hooks or ()),
        )
        for w in network.parameters()
    ] + [module.training for module in network.modules()]


def same(one: list[Any], other: list[Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, tuple):
            return all(map(equal, a, b))
        return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b

    return all(map(equal, one, other))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(fails, network):
    network.first.weight.grad = torch.ones_like(network.first.weight)
    network.first.bias.requires_grad_(False)
    network.second.eval()
    calls: list[int] = []

    def stop(*_: Any) -> None:
        calls.append(1)
        if fails and len(calls) == 4:
            raise KeyboardInterrupt

    before, kept = state(network), network.first.weight.grad
    handle = network.second.register_forward_hook(stop)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            gradient_norms(denoiser_of(network), latents(), [100])
    else:
        gradient_norms(denoiser_of(network), latents(), [100])
    handle.remove()
    assert same(state(network), before) and network.first.weight.grad is kept
    loss = network(latents(), torch.zeros(3), torch.zeros(3, 1, 1)).sum()
    loss.backward()  # the user's own training goes on: nobody takes its gradients away
    assert network.second.weight.grad is not None and network.first.bias.grad is None


def test_never_more_than_one_layers_gradient(network, monkeypatch):
    held, norm = [], torch.linalg.vector_norm

    def watched(*given: Any, **more: Any) -> Tensor:
        held.append(sum(weight.grad is not None for weight in network.parameters()))
        return norm(*given, **more)

    monkeypatch.setattr(torch.linalg, "vector_norm", watched)
    gradient_norms(denoiser_of(network), latents(1), [100], draws=2)
    assert held == [0, 0, 0]  # of two weights and a bias: each is dropped before the next


def test_within_inference_mode(network):
    wanted = gradient_norms(denoiser_of(network), latents(), [100])
    with torch.inference_mode():
        found = gradient_norms(denoiser_of(network), latents(), [100])
    assert torch.equal(found, wanted)


def test_a_pipeline_with_and_without_checkpointing_and_in_16_bits():
    pipe = build("sd1")
    denoiser = to_denoiser(pipe)
    pipe.unet.requires_grad_(False)
    z = torch.randn(2, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(0))
    wanted = gradient_norms(denoiser, z, [140], denoiser.encode(["a cat", "b"]), draws=2)
    assert wanted.shape == (2, len(layer_names(denoiser))) and torch.isfinite(wanted).all()
    pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    found = gradient_norms(denoiser, z, [140], denoiser.encode(["a cat", "b"]), draws=2)
    assert torch.allclose(found, wanted, atol=1e-4) and pipe.unet.training
    pipe.unet.disable_gradient_checkpointing()
    pipe.unet.to(torch.bfloat16)
    coarse = gradient_norms(to_denoiser(pipe), z, [140], draws=2)
    assert torch.isfinite(coarse).all() and pipe.unet.dtype == torch.bfloat16
    assert not any(weight.requires_grad or weight.grad is not None for weight in pipe.unet.parameters())


def test_what_has_no_gradients(network):
    with pytest.raises(NotApplicable, match="not at hand"):
        gradient_norms(toy.linear(), torch.zeros(1, *toy.SHAPE), [100])
    outside = denoiser_of(network)
    outside.differentiable = False
    with pytest.raises(NotApplicable, match="outside of torch"):
        gradient_norms(outside, latents(), [100])
    with torch.inference_mode():
        frozen = Network()
    with pytest.raises(NotApplicable, match="inference mode"):
        gradient_norms(denoiser_of(frozen), latents(), [100])
    with pytest.raises(NotApplicable, match="no weights with gradients"):
        layer_names(denoiser_of(nn.Module()))
    with pytest.raises(NotApplicable, match="moved in and out"):
        layer_names(denoiser_of(Network().to("meta")))


def test_bad_input(network):
    with pytest.raises(InputError, match="even number of noise draws, not 3"):
        gradient_norms(denoiser_of(network), latents(), [100], draws=3)
    with pytest.raises(InputError, match="latents hold NaN"):
        gradient_norms(denoiser_of(network), latents() * float("nan"), [100])
    with torch.no_grad():
        network.second.weight.fill_(3e19)  # its square is infinity
    with pytest.raises(NonFiniteError, match="a gradient is NaN or infinity"):
        gradient_norms(denoiser_of(network), latents(), [100])
    assert not any(weight.grad is not None for weight in network.parameters())
