"""Weights are read wherever they lie, and what rests on them is as if they were there."""

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.offloaded import state_of
from cryptomnesia.errors import InputError

from ..helpers.guarded import attached, flags_none
from ..helpers.pipelines import build
from ..helpers.ways import WAYS

CPU = torch.device("cpu")
SEQUENTIAL = WAYS["`enable_sequential_cpu_offload`"][0].apply
TO_DISK = WAYS["`enable_group_offload`, to disk"][0].apply


@pytest.mark.parametrize("offload", [SEQUENTIAL, TO_DISK])
def test_every_weight_is_read_where_it_lies(offload):
    pipe = build("sd1")
    pipe.unet.fuse_qkv_projections()
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    coder, first = to_denoiser(pipe).autoencoder_identity, to_denoiser(pipe).fingerprint
    offload(pipe, CPU)
    found = {name: read() for name, read in state_of(pipe.unet).items()}
    assert found.keys() == before.keys() and all(torch.equal(found[name], before[name]) for name in before)
    assert to_denoiser(pipe).fingerprint == first and to_denoiser(pipe).autoencoder_identity == coder


def test_another_weight_in_what_offloads_is_another_model():
    pipe = build("sd1")
    SEQUENTIAL(pipe, CPU)
    denoiser = to_denoiser(pipe)
    first = denoiser.fingerprint
    pipe.unet.conv_in._hf_hook.weights_map["weight"].mul_(2)
    assert denoiser.fingerprint != first


@pytest.mark.parametrize("offload", [SEQUENTIAL, TO_DISK])
def test_embeddings_and_callbacks_are_judged_as_ever(offload):
    """Both look at weights: the text encoders' last norm, and whether any was changed meanwhile."""
    pipe = build("sd1")
    embeds = 0.5 * pipe.encode_prompt("a cat", CPU, 1, False)[0]  # too weak to be a prompt's
    given = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds * 0}
    given["callback_on_step_end"] = lambda pipe, step, time, kept: kept
    plain = attached(Guard(pipe, flags_none("sd1")), **given).memorization[0]
    offload(pipe, CPU)
    report = attached(Guard(pipe, flags_none("sd1")), **given).memorization[0]
    assert (report.verdict, report.note, report.score) == (plain.verdict, plain.note, plain.score)
    assert report.verdict == "clear" and "weaker" in report.note


def test_weights_that_nobody_has_are_told_in_one_line():
    pipe = build("sd1")
    pipe.unet.conv_in.to("meta")
    with pytest.raises(InputError, match="a part has no values"):
        list(read() for read in state_of(pipe.unet).values())
