"""A LoRA on a pipeline: the weights of peft and diffusers, and afterwards those of before, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError
from cryptomnesia.lora import Applier, read_lora

from ..helpers.loras import ATTENTION, CONV, TEXT, drawn, kohya, low_rank, weights_of, write
from ..helpers.pipelines import WIDTH, build

ENCODER = "encoder.layers.1.self_attn.q_proj"
LDM = {  # of two levels with one layer each
    "input_blocks.3.1.transformer_blocks.0.attn1.to_q": ATTENTION,
    "input_blocks.1.0.in_layers.2": CONV,
    "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
    "middle_block.1.proj_in": "mid_block.attentions.0.proj_in",
    "output_blocks.1.1.transformer_blocks.0.ff.net.2": "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2",
    "output_blocks.1.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.2.0.emb_layers.1": "up_blocks.1.resnets.0.time_emb_proj",
    "time_embed.2": "time_embedding.linear_2",
    "out.2": "conv_out",
}


@pytest.fixture(scope="module")
def denoiser() -> Any:
    return to_denoiser(build("sd1"))


def shape_of(denoiser: Any, name: str) -> torch.Size:
    return denoiser.pipe.unet.get_parameter(f"{name}.weight").shape


def both(prefix: str, down: str, up: str, name: str = ATTENTION) -> dict[str, Tensor]:
    return {f"{prefix}{name}.{down}": drawn(2, 16) * 0.3, f"{prefix}{name}.{up}": drawn(16, 2) * 0.3}


FORMATS: dict[str, dict[str, Tensor]] = {
    "kohya": low_rank(kohya(ATTENTION), 16, 16, alpha=None),
    "diffusers": both("unet.", "lora_A.weight", "lora_B.weight"),
    "diffusers of old": {
        f"unet.{ATTENTION.replace('.to_q', '.processor.to_q_lora')}.{side}.weight": value
        for side, value in (("down", drawn(2, 16)), ("up", drawn(16, 2)))
    },
    "a convolution": low_rank(kohya(CONV), 8, 8, kernel=3, alpha=4.0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_those_that_diffusers_merges(denoiser: Any, tmp_path: Path, name: str):
    """diffusers' loader reads the same file into peft's layers, which merge it into the weights."""
    file = write(tmp_path / "a.safetensors", FORMATS[name])
    other = build("sd1")
    other.load_lora_weights(str(file))
    other.set_adapters(other.get_active_adapters(), 0.7)
    other.fuse_lora(components=["unet", "text_encoder"])
    other.unload_lora_weights()
    wanted, before = weights_of(other), weights_of(denoiser.pipe)
    with Applier(denoiser, read_lora(file)).at(0.7):
        found = {key: value.clone() for key, value in weights_of(denoiser.pipe).items()}
    changed = [key for key in found if not torch.equal(found[key], weights_of(denoiser.pipe)[key])]
    assert len(changed) == 1 and found.keys() == wanted.keys() == before.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "prefix", ["lora_te_text_model_", "lora_te1_text_model_", "text_encoder.text_model.", "lora_te_"]
)
def test_a_text_encoder_is_changed_under_each_of_its_names(denoiser: Any, tmp_path: Path, prefix: str):
    """With text_model before it, as transformers had it for long, and without."""
    key = prefix + (ENCODER if prefix.endswith(".") else ENCODER.replace(".", "_"))
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", low_rank(key, WIDTH, WIDTH, alpha=4.0))))
    encoder = denoiser.pipe.text_encoder
    weight = next(value for name, value in encoder.named_parameters() if name.endswith(f"{ENCODER}.weight"))
    before, dense = weight.clone(), drawn(WIDTH, 2, seed=1) @ drawn(2, WIDTH)
    with applier.at(0.5):
        torch.testing.assert_close(weight, before + 0.5 * 2.0 * dense)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("old", LDM)
def test_names_of_original_checkpoints_are_known(denoiser: Any, tmp_path: Path, old: str):
    out, inside, *kernel = shape_of(denoiser, LDM[old])
    tensors = low_rank(kohya(old), out, inside, kernel=kernel[0] if kernel else 0)
    (match,) = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", tensors))).matches
    assert match.layer is denoiser.pipe.unet.get_submodule(LDM[old])


def test_every_layer_of_a_unet_has_its_old_name(denoiser: Any):
    from cryptomnesia.adapters.ldm_names import ldm_names

    named = set(ldm_names(denoiser.pipe.unet).values())
    layers = {name for name, part in denoiser.pipe.unet.named_modules() if getattr(part, "weight", None) is not None}
    assert layers <= named


EVERYTHING = {
    **low_rank(kohya(ATTENTION), 16, 16),
    **low_rank("lora_te_text_model_" + ENCODER.replace(".", "_"), WIDTH, WIDTH),
    **{f"{kohya(CONV)}.diff": drawn(8, 8, 3, 3) * 0.1, f"{kohya(CONV)}.diff_b": drawn(8)},
    f"{kohya('down_blocks.0.resnets.0.norm1')}.w_norm": drawn(8),
    f"{kohya('down_blocks.0.resnets.0.norm1')}.b_norm": drawn(8, seed=1),
    f"{kohya('mid_block.resnets.0.conv1')}.diff_b": drawn(16),
}


def kept(denoiser: Any) -> Any:
    """Weights, where they lie, and what is known of them."""
    weights = weights_of(denoiser.pipe)
    return {name: (value.clone(), value.data_ptr()) for name, value in weights.items()}, denoiser.fingerprint


def same(before: Any, after: Any) -> bool:
    (old, first), (new, second) = before, after
    equal = all(torch.equal(old[name][0], new[name][0]) and old[name][1] == new[name][1] for name in old)
    return equal and first == second


def nothing(denoiser: Any) -> None:
    pass


def failing(denoiser: Any) -> None:
    raise RuntimeError("out of memory")


def interrupted(denoiser: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("happening", [nothing, failing, interrupted])
def test_the_pipeline_comes_out_as_it_went_in(denoiser: Any, tmp_path: Path, happening: Callable[[Any], None]):
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", EVERYTHING)))
    before, empty = kept(denoiser), denoiser.empty.tensors["text"].clone()
    for strength in (0.5, 1.0, -1.0):
        try:
            with applier.at(strength) as inner:
                assert inner.fingerprint != before[1]
                assert not torch.equal(inner.empty.tensors["text"], empty)
                with applier.lifted():
                    assert inner.fingerprint == before[1] and torch.equal(inner.empty.tensors["text"], empty)
                assert inner.fingerprint != before[1]
                with pytest.raises(InputError, match="is on already"), applier.at(1.0):
                    pass
                happening(inner)
        except (RuntimeError, KeyboardInterrupt):
            pass
        assert same(before, kept(denoiser)) and torch.equal(denoiser.empty.tensors["text"], empty)
    with applier.at(0):
        assert same(before, kept(denoiser))


def test_a_stop_while_the_lora_is_put_on_or_taken_off_leaves_nothing(denoiser: Any, tmp_path: Path, monkeypatch: Any):
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", EVERYTHING)))
    before, calls = kept(denoiser), [0, 0]
    set_ = torch.Tensor.set_

    def stopping(self: Tensor, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == calls[1]:
            raise KeyboardInterrupt
        return set_(self, *arguments)

    for stop in (3, 9):  # seven tensors are put on
        calls[:] = 0, stop
        monkeypatch.setattr(torch.Tensor, "set_", stopping)
        with pytest.raises(KeyboardInterrupt), applier.at(1.0):
            pass
        monkeypatch.undo()
        assert same(before, kept(denoiser))


def test_halves_are_rounded_once(tmp_path: Path):
    denoiser = to_denoiser(build("sd1").to(torch.bfloat16))
    weight = denoiser.pipe.unet.get_parameter(f"{ATTENTION}.weight")
    file = read_lora(write(tmp_path / "a.safetensors", low_rank(kohya(ATTENTION), 16, 16)))
    exact = weight.float() + 0.5 * file.updates[kohya(ATTENTION)].delta()
    before = weight.clone()
    with Applier(denoiser, file).at(0.5):
        assert torch.equal(weight, exact.bfloat16())
    assert torch.equal(weight, before)


WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "width of text": (
        low_rank(kohya(TEXT), 16, 768),
        "do not fit: its attention reads text 768 wide, as those of Stable Diffusion 1, this model's 16",
    ),
    "width": (low_rank(kohya(ATTENTION), 320, 320), "to_q is 320 x 320, the model's 16 x 16"),
    "kernel": (low_rank(kohya(CONV), 8, 8), "conv1 is 8 x 8, the model's 8 x 8 x 3 x 3"),
    "no such layer": (
        {**low_rank(kohya(ATTENTION), 16, 16), **low_rank("lora_unet_double_blocks_0_img_attn_qkv", 48, 16)},
        "1 of its 2 layers are not in the model, e.g. lora_unet_double_blocks_0_img_attn_qkv",
    ),
    "no such bias": ({f"{kohya(ATTENTION)}.diff_b": drawn(16)}, "do not fit"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_lora_for_another_base_is_told_what_does_not_fit(denoiser: Any, tmp_path: Path, name: str):
    tensors, reason = WRONG[name]
    file = write(tmp_path / "a.safetensors", tensors, {"ss_base_model_version": "sdxl_base_v1-0"})
    before = kept(denoiser)
    with pytest.raises(InputError, match="was made for another base") as caught:
        Applier(denoiser, read_lora(file))
    words = str(caught.value)
    assert reason in words and "it says that it was made for sdxl_base_v1-0: give that base as --model" in words
    assert same(before, kept(denoiser))


def test_names_of_another_format_are_converted_as_diffusers_does(tmp_path: Path):
    """Flux as kohya's scripts name it, where queries, keys and values lie in one matrix."""
    denoiser = to_denoiser(build("flux"))
    tensors = low_rank("lora_unet_double_blocks_0_img_attn_qkv", 48, 16, rank=4, alpha=2.0)
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", tensors)))
    dense = (
        tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
        @ tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"]
    )
    attention = denoiser.pipe.transformer.transformer_blocks[0].attn
    before = [layer.weight.clone() for layer in (attention.to_q, attention.to_k, attention.to_v)]
    with applier.at(1.0):
        after = [layer.weight.clone() for layer in (attention.to_q, attention.to_k, attention.to_v)]
    gains = torch.cat([new - old for old, new in zip(before, after, strict=True)])
    torch.testing.assert_close(gains, dense * 0.5, rtol=1e-4, atol=1e-4)


SCHEDULE = torch.linspace(0.99, 0.01, 10)


def test_models_that_no_lora_can_be_added_to_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = read_lora(write(tmp_path / "a.safetensors", low_rank(kohya(ATTENTION), 16, 16)))
    with pytest.raises(InputError, match="only a pipeline can take a LoRA"):
        Applier(CallableDenoiser(lambda x, t, c: x, SCHEDULE, empty=drawn(1, 1, 1), latent_shape=(4, 8, 8)), read)
    quantised = to_denoiser(build("sd1"))
    layer = quantised.pipe.unet.get_submodule(ATTENTION)
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(InputError, match=r"quantised \(torch\.float8_e4m3fn\)"):
        Applier(quantised, read)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="runs outside of torch"):
        patch.setattr(type(quantised), "differentiable", False)  # as of ONNX files
        Applier(quantised, read)
    layer.weight = torch.nn.Parameter(torch.empty(16, 16, device="meta"), requires_grad=False)
    with pytest.raises(InputError, match="offloaded, out of reach of a LoRA"):
        Applier(quantised, read)


def test_a_weight_that_its_type_cannot_hold_is_told_and_put_back(tmp_path: Path):
    denoiser = to_denoiser(build("sd1").to(torch.float16))
    tensors = low_rank(kohya(CONV), 8, 8, kernel=3) | low_rank(kohya(ATTENTION), 16, 16, alpha=1e6)
    applier, before = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", tensors))), kept(denoiser)
    with pytest.raises(InputError, match=r"larger than torch\.float16 holds"), applier.at(1.0):
        pass
    assert same(before, kept(denoiser))


def test_the_network_may_be_moved_meanwhile(denoiser: Any, tmp_path: Path):
    """As offloading does: every weight is a copy then."""
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", EVERYTHING)))
    before = {name: value.clone() for name, value in weights_of(denoiser.pipe).items()}
    with applier.at(1.0):
        for parameter in denoiser.pipe.unet.parameters():
            parameter.data = parameter.data.clone()
    assert all(torch.equal(before[name], value) for name, value in weights_of(denoiser.pipe).items())
