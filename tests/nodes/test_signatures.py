"""Signatures: measured, kept, read again, and what they are measured on."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.attribution.library import Signatures
from cryptomnesia.signals.spectral import signature

from .graphs import calibrations, complaint, demo, given, ours, ran
from .harness import Comfy
from .results import node

FILE = "mine.signature.safetensors"


@pytest.fixture(autouse=True)
def folder(comfy: Comfy) -> Iterator[Path]:
    place = calibrations(comfy)
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def measuring(comfy: Comfy, latents: torch.Tensor, **changes: Any) -> dict[str, Any]:
    links = {"model": ["load", 0], "clip": ["load", 1], "samples": ["drawn", 0]}
    own = {"name": "mine", "plan": "1step"}
    measured = ours(comfy, "SpectralSignature", **links | own | changes)
    return demo() | {"drawn": given(comfy, {"samples": latents}), "measured": measured}


def latents(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_is_the_librarys_signature_and_survives_a_file(comfy: Comfy, folder: Path):
    prompt = measuring(comfy, latents())
    prompt["saved"] = ours(comfy, "SaveSignature", signature=["measured", 0], name="mine")
    result = ran(comfy, prompt)
    found, plot, text = result.outputs["measured"]
    denoiser = to_denoiser(load_demo())
    scaled = latents() * denoiser.pipe.vae.config.scaling_factor
    torch.testing.assert_close(found.values, signature(denoiser, scaled, plan="1step"), rtol=1e-3, atol=1e-4)
    assert found.fingerprint == denoiser.fingerprint and text.startswith("mine: 2 signatures of plan 1step")
    assert plot.ndim == 4 and plot.shape[-1] == 3 and float(plot.std()) > 0.05
    kept = Signatures.load(folder / FILE)
    assert torch.equal(kept.values, found.values) and result.outputs["saved"] == [FILE]
    again = {"read": node("CryptomnesiaLoadSignature", file=FILE), "keep": node("TestKeep", value=["read", 2])}
    read = ran(comfy, again).outputs["read"]
    assert torch.equal(read[0].values, found.values) and read[2] == text and torch.equal(read[1], plot)


def test_bad_input_costs_one_line(comfy: Comfy, folder: Path):
    keep = {"keep": node("TestKeep", value=["measured", 2])}
    assert "not an empty latent" in complaint(comfy, measuring(comfy, torch.zeros(1, 4, 16, 16)) | keep)
    assert "one line" in complaint(comfy, measuring(comfy, latents(), name=" ") | keep)
    assert "NaN or infinity" in complaint(comfy, measuring(comfy, latents() * float("nan")) | keep)
    assert "no frequency in 7 of 8 rings" in complaint(comfy, measuring(comfy, latents()[..., :2, :2]) | keep)
    assert "4 channels, not 16" in complaint(comfy, measuring(comfy, torch.ones(1, 16, 16, 16)) | keep)
    prompt = measuring(comfy, latents())
    prompt["saved"] = ours(comfy, "SaveSignature", signature=["measured", 0], name="../out")
    assert "no file name" in complaint(comfy, prompt)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(b"cut off")
    comfy.folder_paths.filename_list_cache.clear()
    read = {"read": node("CryptomnesiaLoadSignature", file=FILE), "keep": node("TestKeep", value=["read", 2])}
    assert "no complete safetensors file" in complaint(comfy, read)
