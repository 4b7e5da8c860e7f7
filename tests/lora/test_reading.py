"""LoRA files: their formats, and what broken ones are told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cryptomnesia.errors import InputError
from cryptomnesia.lora import read_lora

from ..helpers.loras import ATTENTION, drawn, kohya, low_rank, write

KEY = kohya(ATTENTION)
PAIR = low_rank(KEY, 16, 16)
DOWN, UP = f"{KEY}.lora_down.weight", f"{KEY}.lora_up.weight"

SIDES = {"a": (16, 2), "b": (2, 16)}
FORMATS: dict[str, dict[str, Tensor]] = {
    "kohya": PAIR,
    "kohya, DoRA": PAIR | {f"{KEY}.dora_scale": torch.ones(1, 16)},
    "diffusers": {f"unet.{ATTENTION}.lora.down.weight": drawn(2, 16), f"unet.{ATTENTION}.lora.up.weight": drawn(16, 2)},
    "PEFT": {f"{ATTENTION}.lora_A.weight": drawn(2, 16), f"{ATTENTION}.lora_B.weight": drawn(16, 2)},
    "LyCORIS LoHa": {
        f"{KEY}.hada_w{i}_{side}": drawn(*size) for i in (1, 2) for side, size in (("a", (16, 2)), ("b", (2, 16)))
    },
    "LyCORIS LoKr": {f"{KEY}.lokr_w1": drawn(4, 4), f"{KEY}.lokr_w2": drawn(4, 4)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_known_by_its_names(tmp_path: Path, name: str):
    read = read_lora(write(tmp_path / "style.safetensors", FORMATS[name]))
    assert read.format == name and len(read.updates) == 1 and read.name == "style"
    assert next(iter(read.updates.values())).shape == (16, 16)


def test_alpha_is_told_by_a_tensor_a_header_or_the_config_beside(tmp_path: Path):
    assert read_lora(write(tmp_path / "a.safetensors", PAIR)).updates[KEY].scale == 0.5
    whole = PAIR | {f"{KEY}.alpha": torch.tensor(4)}  # as a whole number
    assert read_lora(write(tmp_path / "b.safetensors", whole)).updates[KEY].scale == 2.0
    tensors = {f"unet.{name}": value for name, value in FORMATS["PEFT"].items()}
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})}
    read = read_lora(write(tmp_path / "c.safetensors", tensors, header))
    assert read.format == "diffusers" and read.updates[f"unet.{ATTENTION}"].scale == 3.0
    (tmp_path / "peft").mkdir()
    write(
        tmp_path / "peft" / "adapter_model.safetensors",
        {f"base_model.model.{k}": v for k, v in FORMATS["PEFT"].items()},
    )
    config = {"lora_alpha": 8, "r": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn1.to_q": 5}}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(config))
    read = read_lora(tmp_path / "peft")
    assert read.format == "PEFT" and read.updates[f"base_model.model.{ATTENTION}"].scale == 2.5
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 4, "use_rslora": True}))
    assert read_lora(tmp_path / "peft").updates[f"base_model.model.{ATTENTION}"].scale == 4.0
    (tmp_path / "peft" / "adapter_config.json").write_text('{"lora_alpha": "4"}')
    with pytest.raises(InputError, match="tells an alpha or a rank that is no number"):
        read_lora(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").write_text("[" * 5000)
    with pytest.raises(InputError, match="cannot be read"):
        read_lora(tmp_path / "peft")


def nan(place: Path) -> Path:
    broken = drawn(2, 16)
    broken[1, 3] = float("nan")
    return write(place, PAIR | {DOWN: broken})


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda p: p, "there is no LoRA"),
    "a pickle": (lambda p: p.with_suffix(".pt"), "is a pickle, which may run code: get the LoRA as .safetensors"),
    "no safetensors": (lambda p: [p.write_bytes(b"PK\x03\x04"), p][1], "no complete safetensors file"),
    "a pointer": (lambda p: [p.write_bytes(b"version https://git-lfs.github.com/spec/v1"), p][1], "Git LFS pointer"),
    "cut off": (lambda p: [p.write_bytes(write(p, PAIR).read_bytes()[:-9]), p][1], "no complete safetensors file"),
    "a checkpoint": (lambda p: write(p, {"conv_in.weight": drawn(8, 4)}), "no LoRA, but weights of a model"),
    "nothing in it": (lambda p: write(p, {}), "holds no tensors"),
    "half a pair": (lambda p: write(p, {DOWN: PAIR[DOWN]}), f"lacks up of {KEY}, beside down"),
    "the other half": (lambda p: write(p, {UP: PAIR[UP]}), f"lacks down of {KEY}, beside up"),
    "NaN": (nan, f"holds NaN or infinity in {DOWN}: the training failed"),
    "infinity": (lambda p: write(p, PAIR | {UP: PAIR[UP] / 0}), "holds NaN or infinity"),
    "rank 0": (lambda p: write(p, {DOWN: drawn(0, 16), UP: drawn(16, 0)}), "a tensor of rank 0"),
    "other ranks": (lambda p: write(p, PAIR | {UP: drawn(16, 3)}), r"that do not fit \(alpha \(\), down \(2, 16\), up"),
    "flat": (lambda p: write(p, {DOWN: drawn(16), UP: drawn(16)}), "that do not fit"),
    "two alphas": (lambda p: write(p, PAIR | {f"{KEY}.alpha": drawn(2)}), "an alpha of 2 values"),
    "whole numbers": (lambda p: write(p, {DOWN: torch.ones(2, 16, dtype=torch.int8), UP: PAIR[UP]}), "whole numbers"),
    "half a LoHa": (lambda p: write(p, {f"{KEY}.hada_w1_a": drawn(16, 2)}), "lacks hada_w1_b"),
    "an odd LoHa": (lambda p: write(p, FORMATS["LyCORIS LoHa"] | {f"{KEY}.hada_w2_b": drawn(2, 9)}), "do not fit"),
    "OFT": (lambda p: write(p, {f"{KEY}.oft_blocks": drawn(2, 4, 4)}), r"a kind that is not read here \(oft_blocks\)"),
    "lengths alone": (lambda p: write(p, PAIR | {"other.dora_scale": drawn(1, 4)}), "no factors beside it"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_its_reason_in_one_line(tmp_path: Path, name: str):
    make, reason = BROKEN[name]
    with pytest.raises(InputError, match=reason) as caught:
        read_lora(make(tmp_path / "broken.safetensors"))
    assert "\n" not in str(caught.value)


def test_a_folder_is_taken_where_it_has_one_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"0 \.safetensors files: name the LoRA's"):
        read_lora(tmp_path)
    (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"only pickles \(pytorch_lora_weights.bin\)"):
        read_lora(tmp_path)
    write(tmp_path / "a.safetensors", PAIR)
    assert read_lora(tmp_path).path.name == "a.safetensors"
    write(tmp_path / "b.safetensors", PAIR)
    with pytest.raises(InputError, match=r"2 \.safetensors files"):
        read_lora(tmp_path)


def test_what_takes_no_part_is_told(tmp_path: Path):
    save_file(PAIR | {"bundle_emb.style.string_to_param.*": drawn(2, 8)}, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").notes == [
        "1 tensors take no part (bundle_emb.style.string_to_param.*)"
    ]


def test_float8_is_read(tmp_path: Path):
    half = {name: value.to(torch.float8_e4m3fn) for name, value in PAIR.items() if value.ndim}
    update = read_lora(write(tmp_path / "a.safetensors", half)).updates[KEY]
    torch.testing.assert_close(update.delta(), half[UP].float() @ half[DOWN].float())
