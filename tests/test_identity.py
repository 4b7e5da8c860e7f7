"""The fingerprint: whatever changes answers changes it, whatever leaves them alone leaves it alone."""

import json
from functools import partial, wraps

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn
from transformers import CLIPTokenizer

from cryptomnesia import identity, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.modules import peculiarities
from cryptomnesia.demo import WEIGHTS
from cryptomnesia.identity import describe, fingerprint, token_settings

from .helpers.pipelines import LETTERS, build, clip_encoder, sample
from .helpers.recording import every_family, noise


class Strong(AttnProcessor):
    """Named like none of diffusers'; its strength is what users turn."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * self.strength


class AttnProcessor2_0_Copy(AttnProcessor2_0):
    pass


AttnProcessor2_0_Copy.__name__ = "AttnProcessor2_0"  # as its namesake, but somebody else's


def louder(strength):
    return lambda module, inputs, output: (output[0] * strength, *output[1:])


def before(module, inputs):
    return inputs


STRENGTH = 2


def as_told(module, inputs, output):
    return (output[0] * STRENGTH, *output[1:])


class Counter:
    def __init__(self, strength):
        self.strength = strength

    def hook(self, module, inputs, output):
        return output


def answers(pipe) -> torch.Tensor:
    """A condition and what the network says to it, rounded where ways of computing differ."""
    denoiser = to_denoiser(pipe)
    return denoiser.predict(noise(1), denoiser.levels.fraction(0.7), denoiser.encode("a cat")).raw


def swapped() -> CLIPTokenizer:
    pieces = [
        *reversed(LETTERS),
        *(letter + "</w>" for letter in reversed(LETTERS)),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, [], model_max_length=77)


def lora(pipe, scale=1.0, off=False, merged=(), active=("style",), up=0.3):
    """A layer as peft wraps it, in the place of the plain one."""

    class Tuned(nn.Module):
        def __init__(self, base):
            super().__init__()
            first, second = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)
            self.base_layer = base
            self.lora_A, self.lora_B = nn.ModuleDict({"style": first}), nn.ModuleDict({"style": second})
            nn.init.constant_(first.weight, 0.1)
            nn.init.constant_(second.weight, up)
            self.scaling, self.active_adapters = {"style": scale}, list(active)
            self.merged_adapters, self.disable_adapters = list(merged), off

        def forward(self, x):
            out = self.base_layer(x)
            if self.disable_adapters or self.merged_adapters or "style" not in self.active_adapters:
                return out
            return out + self.scaling["style"] * self.lora_B["style"](self.lora_A["style"](x))

    Tuned.__module__ = "peft.tuners.lora.layer"
    attention = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    attention.to_q = Tuned(attention.to_q)
    return pipe


def set_processor(pipe, make):
    pipe.unet.set_attn_processor({name: make() for name in pipe.unet.attn_processors})


def set_scheduler(pipe, cls, **options):
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **options)


def mid(pipe):
    return pipe.unet.mid_block


CHANGES = {
    "FreeU": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "weaker FreeU": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.1, b2=1.4),
    "a processor": lambda pipe: set_processor(pipe, lambda: Strong(0.5)),
    "a stronger processor": lambda pipe: set_processor(pipe, lambda: Strong(2.0)),
    "a namesake": lambda pipe: set_processor(pipe, AttnProcessor2_0_Copy),
    "a hook": lambda pipe: pipe.unet.register_forward_hook(louder(2)),
    "a stronger hook": lambda pipe: pipe.unet.register_forward_hook(louder(3)),
    "a hook inside": lambda pipe: mid(pipe).attentions[0].register_forward_hook(louder(2)),
    "a hook of an object": lambda pipe: pipe.unet.register_forward_hook(Counter(2).hook),
    "a hook of another object": lambda pipe: pipe.unet.register_forward_hook(Counter(3).hook),
    "a hook before": lambda pipe: pipe.unet.conv_in.register_forward_pre_hook(before),
    "a hook of the text encoder": lambda pipe: pipe.text_encoder.register_forward_hook(before),
    "a partial": lambda pipe: pipe.unet.register_forward_hook(partial(lambda k, *given: given[2], 3)),
    "a forward": lambda pipe: setattr(pipe.unet, "forward", louder(2)),
    "a forward inside": lambda pipe: setattr(mid(pipe).resnets[0], "forward", lambda x, *rest: x),
    "an attribute": lambda pipe: setattr(mid(pipe).resnets[0], "output_scale_factor", 2.0),
    "attention's scale": lambda pipe: setattr(mid(pipe).attentions[0].transformer_blocks[0].attn1, "scale", 0.1),
    "a layer of another class": lambda pipe: setattr(mid(pipe).resnets[0], "nonlinearity", nn.ReLU()),
    "a layer more": lambda pipe: pipe.unet.add_module("extra", nn.Identity()),
    "a layer less": lambda pipe: delattr(mid(pipe).resnets[0], "dropout"),
    "a function": lambda pipe: setattr(mid(pipe).resnets[0], "activation", torch.relu),
    "a tokenizer": lambda pipe: setattr(pipe, "tokenizer", swapped()),
    "prompts": lambda pipe: setattr(pipe, "encode_prompt", lambda *given, **named: None),
    "prompts in disguise": lambda pipe: setattr(pipe, "encode_prompt", wraps(pipe.encode_prompt)(lambda *given: given)),
    "dropout": lambda pipe: (setattr(mid(pipe).resnets[0].dropout, "p", 0.5), pipe.unet.train()),
    "another dtype": lambda pipe: pipe.unet.half(),
    "a schedule": lambda pipe: pipe.scheduler.register_to_config(beta_end=0.02),
    "a zero signal": lambda pipe: set_scheduler(pipe, DDIMScheduler, rescale_betas_zero_snr=True),
    "LoRA": lora,
    "a weaker LoRA": lambda pipe: lora(pipe, scale=0.5),
    "another LoRA": lambda pipe: lora(pipe, up=0.4),
}
SAME = {
    "nothing": lambda pipe: None,
    "sampling": sample,
    "FreeU on and off": lambda pipe: (pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), pipe.disable_freeu()),
    "fused projections": lambda pipe: pipe.unet.fuse_qkv_projections(),
    "projections fused and taken apart": lambda pipe: (
        pipe.unet.fuse_qkv_projections(),
        pipe.unet.unfuse_qkv_projections(),
    ),
    "plain attention": lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()),
    "slices": lambda pipe: pipe.enable_attention_slicing(1),
    "channels last": lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    "another sampler": lambda pipe: setattr(
        pipe, "scheduler", EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    ),
    "a third sampler": lambda pipe: setattr(
        pipe, "scheduler", DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    ),
    "a hook that is gone": lambda pipe: pipe.unet.register_forward_hook(louder(2)).remove(),
    "LoRA off": lambda pipe: lora(pipe, off=True),
    "LoRA at 0": lambda pipe: lora(pipe, scale=0.0),
    "LoRA not chosen": lambda pipe: lora(pipe, active=()),
    "LoRA merged, without effect": lambda pipe: lora(pipe, merged=("style",)),
    "checkpointing": lambda pipe: pipe.unet.enable_gradient_checkpointing(),
}


def test_each_change_is_another_model():
    found = {"nothing": to_denoiser(build("sd1")).fingerprint}
    for name, change in CHANGES.items():
        pipe = build("sd1")
        denoiser = to_denoiser(pipe)
        assert denoiser.fingerprint == found["nothing"]
        change(pipe)
        found[name] = denoiser.fingerprint  # looked at anew
        assert to_denoiser(pipe).fingerprint == found[name], name  # and the same for whoever looks
    twins: dict[str, list[str]] = {}
    for name, value in found.items():
        twins.setdefault(value, []).append(name)
    assert [names for names in twins.values() if len(names) > 1] == []


@pytest.mark.parametrize("name", SAME)
def test_what_changes_no_answer_leaves_the_fingerprint(name):
    pipe = build("sd1")
    before, first = answers(pipe), to_denoiser(pipe).fingerprint
    SAME[name](pipe)
    torch.testing.assert_close(answers(pipe), before, rtol=1e-4, atol=1e-5)
    assert to_denoiser(pipe).fingerprint == first


@every_family
def test_a_plain_pipeline_has_no_peculiarities_before_and_after_sampling(family):
    pipe = build(family)
    denoiser = to_denoiser(pipe)
    for _ in range(2):
        assert [peculiarities(module) for module in (denoiser.network, *denoiser.text_encoders)] == [
            [] for _ in (denoiser.network, *denoiser.text_encoders)
        ]
        sample(pipe)


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_fused_projections_of_transformers(family):
    pipe = build(family)
    first, before = to_denoiser(pipe).fingerprint, answers(pipe)
    pipe.transformer.fuse_qkv_projections()
    torch.testing.assert_close(answers(pipe), before, rtol=1e-4, atol=1e-5)
    assert to_denoiser(pipe).fingerprint == first
    fused = next(m for n, m in pipe.transformer.named_modules() if n.endswith("to_qkv"))
    with torch.no_grad():
        fused.weight.mul_(1.5)  # no copy any more
    assert to_denoiser(pipe).fingerprint != first


def test_layers_kept_in_another_dtype_are_another_model_and_offloaded_groups_are_not():
    pipe = build("flux")
    first = to_denoiser(pipe).fingerprint
    pipe.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert to_denoiser(pipe).fingerprint == first
    found = set()
    for compute in (torch.float32, torch.bfloat16):
        pipe = build("flux")
        pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
        found.add(to_denoiser(pipe).fingerprint)
    assert len(found | {first}) == 3


def test_offloading_is_the_same_model_and_a_hook_beneath_it_is_seen():
    from accelerate.hooks import AlignDevicesHook, CpuOffload, add_hook_to_module

    pipe = build("sd1")
    first = to_denoiser(pipe).fingerprint
    add_hook_to_module(pipe.unet, CpuOffload("cpu"))
    add_hook_to_module(pipe.unet, AlignDevicesHook("cpu"), append=True)
    assert not peculiarities(pipe.unet) and to_denoiser(pipe).fingerprint == first
    pipe = build("sd1")
    pipe.unet.forward = louder(2)
    add_hook_to_module(pipe.unet, CpuOffload("cpu"))
    assert any("forward" in words for words in peculiarities(pipe.unet))


def test_methods_that_were_replaced_in_a_library_are_seen(monkeypatch):
    denoiser = to_denoiser(build("sd1"))
    first = denoiser.fingerprint
    for owner, name in ((type(mid(denoiser.pipe).resnets[0]), "forward"), (AttnProcessor2_0, "__call__")):
        with monkeypatch.context() as patched:  # passed off as the library's own
            patched.setattr(owner, name, wraps(getattr(owner, name))(lambda self, x, *rest, **named: x))
            assert denoiser.fingerprint != first
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, **named: v)
        assert denoiser.fingerprint != first
    handle = nn.modules.module.register_module_forward_hook(before)
    try:
        assert denoiser.fingerprint != first
    finally:
        handle.remove()
    assert denoiser.fingerprint == first


def test_whole_numbers_are_digested_and_positions_are_not():
    quantised = [torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), torch.ones(2)]
    other = [torch.tensor([[1, -2], [3, 5]], dtype=torch.int8), torch.ones(2)]
    assert fingerprint(quantised) != fingerprint(other) != fingerprint([torch.ones(2)])
    assert fingerprint([torch.tensor([2**30 + 1])]) != fingerprint([torch.tensor([2**30])])
    assert fingerprint([torch.ones(2), torch.arange(77)[None]]) == fingerprint([torch.ones(2)])
    assert fingerprint([torch.tensor([True, False])]) != fingerprint([torch.tensor([False, True])])


def test_a_network_with_quantised_weights_is_told_from_another():
    def quantised(shift):
        pipe = build("sd1")
        weight = pipe.unet.conv_in.weight
        del pipe.unet.conv_in._parameters["weight"]
        pipe.unet.conv_in.register_buffer("weight", (weight * 100).to(torch.int8) + shift)
        return to_denoiser(pipe)

    assert quantised(0).fingerprint == quantised(0).fingerprint != quantised(1).fingerprint
    denoiser = quantised(0)
    first = denoiser.fingerprint
    denoiser.network.conv_in.weight.add_(1)
    assert denoiser.fingerprint == quantised(1).fingerprint != first


def test_tensors_that_keep_others_inside_are_digested_by_these():
    class Packed(torch.Tensor):
        def __tensor_flatten__(self):
            return ["inside"], None

    packed = torch.zeros(3).as_subclass(Packed)
    packed.inside = torch.arange(3.0)
    assert [part.tolist() for part in identity.inner_tensors(packed)] == [[0.0, 1.0, 2.0]]
    assert [part.tolist() for part in identity.inner_tensors(torch.ones(1))] == [[1.0]]
    assert not list(identity.inner_tensors({"a state that is": "no tensor"}))


# --- tokenizers ---


def test_the_built_in_model_keeps_the_fingerprint_of_its_calibration():
    stored = json.loads((WEIGHTS / "demo.calibration.json").read_text())["fingerprint"]
    denoiser = to_denoiser(load_demo())
    assert denoiser.fingerprint == stored
    tokenizer = denoiser.pipe.tokenizer
    denoiser.pipe.tokenizer = swapped()
    assert denoiser.fingerprint != stored
    denoiser.pipe.tokenizer = tokenizer
    assert denoiser.fingerprint == stored


def test_the_empty_prompt_is_encoded_anew_for_another_tokenizer():
    pipe = build("sd1")
    denoiser = to_denoiser(pipe)
    first = denoiser.empty
    pipe.tokenizer = swapped()
    assert denoiser.empty is not first


def test_every_encoders_tokenizer_counts():
    for family in ("sdxl", "sd3"):
        pipe = build(family)
        denoiser = to_denoiser(pipe)
        found = {denoiser.fingerprint}
        for name in [name for name in ("tokenizer", "tokenizer_2") if hasattr(pipe, name)]:
            own = getattr(pipe, name)
            setattr(pipe, name, swapped())
            found.add(denoiser.fingerprint)
            setattr(pipe, name, own)
        assert len(found) >= 2


def test_usual_tokens_add_nothing_and_only_for_their_own_encoder(monkeypatch):
    assert token_settings(lambda text: [1, len(text)], 49408) != []
    tokens = load_demo().tokenizer
    assert token_settings(lambda text: tokens(text).input_ids, 1182) == []
    (other,) = token_settings(lambda text: tokens(text).input_ids, 49408)
    assert other == token_settings(lambda text: tokens(text).input_ids, 1183)[0]
    assert all(text.isascii() for text in identity.TEXTS)


# --- words ---


def test_what_a_function_reads_from_its_module_counts(monkeypatch):
    words = describe(as_told)
    with monkeypatch.context() as patched:
        patched.setitem(as_told.__globals__, "STRENGTH", 3)
        assert describe(as_told) != words
    assert describe(as_told) == words


def test_objects_are_described_by_class_code_and_settings():
    assert describe(louder(2)) == describe(louder(2)) != describe(louder(3))
    assert describe(Counter(2)) != describe(Counter(3)) and describe(Counter(2).hook) != describe(Counter(3).hook)
    assert describe(partial(louder, 2)) != describe(partial(louder, 3))
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert describe(torch.ones(3)) != describe(torch.zeros(3)) and describe(clip_encoder) != describe(build)
    assert describe({"b", "a"}) == describe({"a", "b"}) and describe([1, 2]) != describe([2, 1])
    own = Counter(1)
    own.itself, own.seen = own, [torch.ones(3)]
    words = describe(own)
    own.seen.append(torch.zeros(3))
    assert describe(own) == words and "0x" not in words


def test_a_schedule_of_another_length_is_another_model():
    pipe = build("sd1")
    first = to_denoiser(pipe).fingerprint
    set_scheduler(pipe, DDIMScheduler, num_train_timesteps=500)
    assert to_denoiser(pipe).fingerprint != first


def test_compiled_networks_are_the_same_model():
    pipe = build("sd1")  # compiled when first called, which it is not
    first = to_denoiser(pipe).fingerprint
    pipe.unet.mid_block.compile(backend="eager")
    pipe.unet.down_blocks[0] = torch.compile(pipe.unet.down_blocks[0], backend="eager")
    pipe.unet.forward = torch.compile(pipe.unet.forward, backend="eager")
    assert to_denoiser(pipe).fingerprint == first
