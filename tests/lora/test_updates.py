"""Updates of every form against peft's own layers, and by hand where peft has none."""

from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import Tensor, nn

from cryptomnesia.errors import InputError
from cryptomnesia.lora.reading import updates_of

from ..helpers.loras import drawn

NOWHERE = Path("x.safetensors")


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(24, 20), nn.Conv2d(8, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


CONFIGS = {
    "LoRA": LoraConfig(r=3, lora_alpha=5, target_modules=["linear", "conv"]),
    "DoRA": LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=["linear", "conv"]),
    "LoHa": LoHaConfig(r=3, alpha=5, target_modules=["linear", "conv"]),
    "LoHa with cores": LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, target_modules=["conv"]),
    "LoKr": LoKrConfig(r=1, alpha=5, target_modules=["linear", "conv"]),
    "LoKr of two products": LoKrConfig(r=1, alpha=5, decompose_both=True, target_modules=["linear"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_dense_update_is_what_peft_merges(kind: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        base = Layers()
        before = {name: value.clone() for name, value in base.state_dict().items()}
        model = get_peft_model(base, CONFIGS[kind])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "magnitude" not in name:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
                elif parameter.requires_grad:
                    parameter.mul_(1.3)
    tensors = {
        name.removeprefix("base_model.model.").replace(".default", ""): value.detach().clone()
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    config = CONFIGS[kind]
    alphas: dict[str, float] = dict.fromkeys(
        ("linear", "conv"), float(getattr(config, "lora_alpha", None) or config.alpha)
    )
    updates = updates_of(tensors, NOWHERE, alphas)
    model.merge_and_unload()
    merged = base.state_dict()
    assert set(updates) == set(config.target_modules)
    for name, update in updates.items():
        weight = before[f"{name}.weight"]
        if kind == "DoRA":
            with pytest.raises(InputError, match="depends on the base's weight"):
                update.delta()
        else:
            dense = update.delta().view(weight.shape)  # LoHa's factors of a convolution are flat
            torch.testing.assert_close(weight + dense, merged[f"{name}.weight"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weight + update.delta(weight=weight), merged[f"{name}.weight"], rtol=1e-4, atol=1e-5)


def test_a_convolution_between_the_factors_is_three_convolutions_in_a_row():
    down, mid, up = drawn(3, 5, 1, 1), drawn(2, 3, 3, 3), drawn(6, 2, 1, 1)
    update = updates_of({"x.lora_down.weight": down, "x.lora_mid.weight": mid, "x.lora_up.weight": up}, NOWHERE)["x"]
    x = drawn(1, 5, 7, 7, seed=9)
    steps = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(x, down), mid), up)
    torch.testing.assert_close(nn.functional.conv2d(x, update.delta()), steps, rtol=1e-4, atol=1e-4)
    assert update.shape == (6, 5, 3, 3)


def test_lengths_of_columns_hold_for_columns():
    """As LyCORIS has them by default."""
    weight, lengths = drawn(8, 12), torch.arange(1.0, 13).view(1, 12)
    tensors = {"x.lora_down.weight": drawn(2, 12), "x.lora_up.weight": drawn(8, 2), "x.dora_scale": lengths}
    changed = weight + updates_of(tensors, NOWHERE)["x"].delta(weight=weight)
    torch.testing.assert_close(changed.norm(dim=0), lengths.flatten(), rtol=1e-4, atol=1e-4)


def test_factors_are_at_hand_where_there_are_any():
    tensors = {"x.lora_A.weight": drawn(2, 12), "x.lora_B.weight": drawn(8, 2)}
    update = updates_of(tensors, NOWHERE, {"x": 6.0})["x"]
    assert update.down is tensors["x.lora_A.weight"] and update.up is tensors["x.lora_B.weight"]
    assert (update.rank, update.scale) == (2, 3.0) and update.delta(torch.bfloat16).dtype == torch.bfloat16
    dense = updates_of({"x.diff": drawn(4, 4)}, NOWHERE)["x"]
    assert dense.down is None and dense.up is None and dense.rank is None and torch.equal(dense.delta(), drawn(4, 4))
