"""What the library asks beside a pipeline's own calls goes round compilers and caches, and has gradients still."""

import pytest
import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.plain_calls import plainly
from cryptomnesia.errors import NotApplicable

from ..helpers.guarded import call
from ..helpers.pipelines import build
from ..helpers.recording import network_of, noise
from ..helpers.ways import WAYS, cast

CACHES = WAYS["caches: first block, PAB, TaylorSeer, MagCache"]


def test_what_is_asked_beside_makes_no_graphs():
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    pipe = build("sd1")
    pipe.unet.compile(backend=counting, fullgraph=True)
    call(pipe)
    made, kept = len(graphs), pipe.unet._compiled_call_impl
    denoiser = to_denoiser(pipe)
    condition = denoiser.encode("a cat")
    for rows in range(1, 4):
        for grad in (False, True):
            denoiser.predict(noise(rows), denoiser.levels.pure_noise, condition, grad=grad)
    assert made and len(graphs) == made and pipe.unet._compiled_call_impl is kept
    torch._dynamo.reset()


@pytest.mark.parametrize("number", range(len(CACHES)))
def test_caches_answer_the_pipeline_alone(number):
    pipe, plain = build("flux"), build("flux")
    CACHES[number].apply(pipe, torch.device("cpu"))
    assert not torch.equal(call(pipe, steps=4).images, call(plain, steps=4).images)  # later steps are not asked in full
    answers = []
    for denoiser in map(to_denoiser, (pipe, plain)):
        levels, condition = denoiser.levels.sampling(3), denoiser.encode("a cat")
        answers.append([denoiser.predict(noise(1), level, condition).raw for level in levels])
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))


def test_what_fails_meanwhile_leaves_all_as_it_was():
    pipe = build("flux")
    CACHES[0].apply(pipe, torch.device("cpu"))
    pipe.transformer.compile_repeated_blocks(backend="eager")
    network = network_of(pipe)

    def state():
        own = [vars(layer).get("_compiled_call_impl") for layer in network.modules()]
        hooks = [getattr(layer, "_diffusers_hook", None) for layer in network.modules()]
        return own, [reference.forward for hook in hooks if hook for reference in hook._fn_refs]

    before = state()
    with pytest.raises(ZeroDivisionError), plainly(network):
        assert not any(state()[0]) and state()[1] != before[1]
        raise ZeroDivisionError
    assert state() == before and any(before[0]) and before[1]


def test_gradients_are_those_of_the_weights_that_answered():
    """A layer's weights are in eight bits again when gradients are computed."""
    pipe, rounded = build("sd1"), build("sd1")
    cast(pipe)
    # what is kept in eight bits is computed with as this
    for (_, kept), (_, weight) in zip(pipe.unet.named_parameters(), rounded.unet.named_parameters(), strict=True):
        weight.data = kept.data.to(torch.float32)
    gradients = []
    for denoiser in map(to_denoiser, (pipe, rounded)):
        condition = denoiser.encode("a cat")
        text = condition.tensors["text"].requires_grad_()
        answer = denoiser.predict(noise(1), denoiser.levels.pure_noise, condition, grad=True).noise
        gradients.append(torch.autograd.grad(answer.square().sum(), text)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


def test_somebodys_code_that_cannot_be_asked_is_named_in_one_line():
    """As step caches do it that put functions in place of the network's."""
    pipe = build("sd1")
    denoiser, own = to_denoiser(pipe), pipe.unet.forward

    def stranger(x, time, *args, **named):
        return own(x, time.item(), *args, **named)  # of one step

    pipe.unet.forward = stranger
    condition = denoiser.encode("a cat")
    denoiser.predict(noise(1), denoiser.levels.pure_noise, condition)
    with pytest.raises(NotApplicable, match=r"test_plain_calls stands in for a part of the network, and fails"):
        denoiser.predict(noise(2), denoiser.levels.pure_noise, condition)
    del pipe.unet.forward
    with pytest.raises(RuntimeError):  # of the network's own there is no stranger to name
        pipe.unet.conv_in.weight.data = torch.zeros(1)
        denoiser.predict(noise(1), denoiser.levels.pure_noise, condition)
