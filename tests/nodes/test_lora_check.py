"""LoRA Check, and the library's reading of LoRA files beside ComfyUI's own."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.comfyui import load_demo_comfyui
from cryptomnesia.lora import Applier, read_lora

from ..helpers.loras import drawn, kohya, low_rank, write
from .graphs import complaint, demo, keep, links, ours, ran
from .harness import Comfy
from .test_demo_model import CLOSE, expected_condition, predicted_noise, seeded

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"  # 96 x 128
CONV = "down_blocks.1.resnets.0.conv1"  # 96 x 64 x 3 x 3
LINEAR, CONVOLUTION = kohya(ATTENTION), kohya(CONV)


def scaled(tensors: dict[str, Tensor], by: float = 0.2) -> dict[str, Tensor]:
    return {name: value * by if value.ndim else value for name, value in tensors.items()}


FORMATS: dict[str, dict[str, Tensor]] = {
    "LoRA": scaled(low_rank(LINEAR, 96, 128, rank=4, alpha=2.0) | low_rank(CONVOLUTION, 96, 64, kernel=3)),
    "LoCon with a middle": scaled(
        {
            f"{CONVOLUTION}.lora_down.weight": drawn(4, 64, 1, 1),
            f"{CONVOLUTION}.lora_mid.weight": drawn(4, 4, 3, 3),
            f"{CONVOLUTION}.lora_up.weight": drawn(96, 4, 1, 1),
        }
    ),
    "LoHa": scaled(
        {
            f"{LINEAR}.hada_w{i}_{s}": drawn(*size, seed=i)
            for i in (1, 2)
            for s, size in (("a", (96, 3)), ("b", (3, 128)))
        }
        | {f"{LINEAR}.alpha": torch.tensor(6.0)},
        0.5,
    ),
    "LoKr": scaled(
        {f"{LINEAR}.lokr_w1": drawn(8, 8), f"{LINEAR}.lokr_w2_a": drawn(12, 2), f"{LINEAR}.lokr_w2_b": drawn(2, 16)}
        | {f"{LINEAR}.alpha": torch.tensor(1.0)},
        0.5,
    ),
    "DoRA": scaled(low_rank(LINEAR, 96, 128)) | {f"{LINEAR}.dora_scale": drawn(1, 128).abs() + 1},
    "whole layers": {f"{CONVOLUTION}.diff": drawn(96, 64, 3, 3) * 0.02, f"{CONVOLUTION}.diff_b": drawn(96) * 0.1},
    "names of checkpoints": scaled(
        low_rank("lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k", 96, 128)
        | low_rank("lora_unet_output_blocks_1_2_conv", 112, 112, kernel=3)
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_those_of_comfyui(comfy: Comfy, tmp_path: Path, name: str):
    from comfy.sd import load_lora_for_models

    file = write(tmp_path / "a.safetensors", FORMATS[name])
    with torch.inference_mode():
        model, clip, _ = load_demo_comfyui()
        pipe = load_demo()
        changed, _ = load_lora_for_models(model, clip, FORMATS[name], 0.6, 0.6)
        x, text = seeded(1, 4, 16, 16), expected_condition(pipe, "monkey face on blue")
        plain = pipe.unet(x, 501, text).sample
        with Applier(to_denoiser(pipe), read_lora(file)).at(0.6):
            ours = pipe.unet(x, 501, text).sample
        assert (ours - plain).abs().max() > 100 * CLOSE
        torch.testing.assert_close(predicted_noise(changed, x, 501, text), ours, atol=CLOSE, rtol=0)
        assert torch.equal(pipe.unet(x, 501, text).sample, plain)


BENIGN = [
    f"{colour} {thing}"
    for colour in "red blue green white grey".split()
    for thing in "owl cat fox bee cow bus car sun \
moon star tree leaf rose cake bread apple pear ship drum bell".split()
]
ZOO = Path(__file__).parents[2] / "benchmarks" / "zoo" / "weights" / "lora-few" / "lora.safetensors"


def checked(comfy: Comfy, **changes: Any) -> dict[str, Any]:
    folder = Path(comfy.folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(exist_ok=True)
    (folder / "few.safetensors").write_bytes(ZOO.read_bytes())
    prompts = {"ss_tag_frequency": json.dumps({"1_x": {"a b": 1}})}
    write(folder / "other.safetensors", low_rank(LINEAR, 320, 768), prompts)
    write(folder / "flux.safetensors", low_rank("lora_unet_double_blocks_0_img_mlp_0", 96, 128), prompts)
    write(folder / "bare.safetensors", low_rank(LINEAR, 96, 128))
    prompt = demo()
    own: dict[str, Any] = {name: link for name, link in links(prompt).items() if name != "positive"}
    own |= {"lora": "few.safetensors", "strengths": "1", "draws": 1, "benign": "\n".join(BENIGN)}
    return prompt | {"check": ours(comfy, "LoraCheck", **own | changes), "end": keep("check", 4)}


def test_prompts_of_the_metadata_are_found_memorized(comfy: Comfy, output: Path):
    table, text, name, memorized = ran(comfy, checked(comfy)).outputs["check"]
    trained = list(json.loads(read_lora(ZOO).metadata["ss_tag_frequency"])["1_lora-few"])
    assert len(trained) == 6 and set(memorized) <= set(trained) and len(memorized) >= 5
    first = text.splitlines()[0]
    assert first.startswith(f"few, at strength 1: {len(memorized)} of 7 prompts are likely memorized by the LoRA")
    rows = list(csv.DictReader(io.StringIO((output / name).read_text("utf-8-sig"))))
    assert {row["prompt"] for row in rows if row["finding"].startswith("likely memorized by the LoRA")} == set(
        memorized
    )
    assert all(float(row["base"]) > 0.05 for row in rows if row["prompt"] in memorized)
    assert table.shape[2] == 330 + 2 * 118 + 48 and float(table.std()) > 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": "none"}, "no LoRA was chosen"),
        ({"lora": "bare.safetensors"}, "bare.safetensors tells no prompts in its metadata"),
        ({"lora": "other.safetensors"}, "other.safetensors was made for another base"),
        ({"lora": "flux.safetensors"}, "double_blocks_0_img_mlp_0 is not in it): load that one"),
        ({"strengths": "0"}, "strengths are one to 8 numbers other than 0"),
        ({"benign": "a\nb"}, "2 benign prompts are too few"),
    ],
)
def test_what_cannot_be_checked_is_told(comfy: Comfy, changes: dict[str, str], words: str):
    assert words in complaint(comfy, checked(comfy, **changes))
