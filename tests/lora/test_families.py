"""LoRAs that diffusers itself writes, on pipelines of several families: the same answers as with peft's layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.lora import Applier, check_lora, read_lora
from cryptomnesia.lora.maps import locate_finding

from ..helpers.loras import drawn, kohya, low_rank, write
from ..helpers.pipelines import build


def network_of(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


@pytest.mark.parametrize("told", [False, True], ids=["alpha unknown", "alpha told"])
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_answers_are_those_of_the_adapter(tmp_path: Path, family: str, told: bool):
    """diffusers writes alpha where it is given the adapter's metadata; a reader that is not told it takes alpha = rank,
    as its own loader does."""
    trained, pipe = build(family), build(family)
    config = LoraConfig(r=2, lora_alpha=6 if told else 2, target_modules=["to_q", "to_k", "to_out.0"])
    network = network_of(trained)
    network.add_adapter(config)
    with torch.no_grad():
        for number, (_, part) in enumerate((n, p) for n, p in network.named_parameters() if "lora_" in n):
            part.copy_(drawn(*part.shape, seed=number) * 0.3)
    kind = "unet" if hasattr(trained, "unet") else "transformer"
    metadata = {f"{kind}_lora_adapter_metadata": config.to_dict()} if told else {}
    layers = {f"{kind}_lora_layers": get_peft_model_state_dict(network)}
    type(trained).save_lora_weights(tmp_path, **layers, **metadata)
    read = read_lora(tmp_path)
    assert read.format == "diffusers" and {update.scale for update in read.updates.values()} == {3.0 if told else 1.0}
    ours, theirs = to_denoiser(pipe), to_denoiser(trained)
    prompt, level = ours.encode("a cat"), ours.levels.pure_noise
    x = drawn(1, *ours.latent_shape())
    plain = ours.predict(x, level, prompt).raw
    with Applier(ours, read).at(1.0):
        changed = ours.predict(x, level, prompt).raw
    assert (changed - plain).abs().max() > 1e-3
    torch.testing.assert_close(changed, theirs.predict(x, level, prompt).raw, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours.predict(x, level, prompt).raw, plain)


BENIGN = [f"{letter} {other}" for letter in "abcdefghij" for other in "klmnopqrst"]


@pytest.mark.parametrize("family", ["sdxl", "flux-guided"])
def test_a_check_and_a_map_are_had_on_other_families(tmp_path: Path, family: str):
    """Of a network with two text encoders, and of one of flow matching that compares with its empty prompt."""
    pipe = build(family)
    layer = next(
        name for name, _ in network_of(pipe).named_modules() if name.endswith("attn.to_q") or "attn2.to_q" in name
    )
    out, inside = network_of(pipe).get_submodule(layer).weight.shape
    file = write(tmp_path / "a.safetensors", low_rank(kohya(layer), out, inside))
    denoiser = to_denoiser(pipe)
    before = denoiser.fingerprint
    check = check_lora(denoiser, file, ["a cat"], benign=BENIGN, draws=1, strengths=[1], height=16, width=16)
    assert check.reference == denoiser.reference and len(check.prompts) == 1 and len(set(check.fingerprints)) == 2
    applier = Applier(denoiser, read_lora(file))
    found = locate_finding(applier, check, check.prompts[0], steps=3, height=16, width=16)
    assert found.map.shape == (16, 16) and torch.isfinite(found.map).all() and denoiser.fingerprint == before
