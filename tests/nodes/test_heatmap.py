"""Memorization Heatmap: where an image that KSampler made is memorized."""

from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery

from .graphs import BENIGN, complaint, demo, ours, ran, with_check
from .harness import Comfy
from .results import node

TEMPLATES = [caption.text for caption in select("template", "dev")[1:]]  # the first, a thin figure, is told badly


def heatmap(comfy: Comfy, text: str, batch: int = 1, **changes: Any) -> dict[str, Any]:
    """Check, sample, decode, and look where."""
    prompt = with_check(comfy, demo(text, batch=batch))
    links = {"model": ["load", 0], "positive": ["text", 0], "negative": ["empty", 0], "latent_image": ["latent", 0]}
    settings = {"seed": 7, "steps": 20, "cfg": 7.5, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0}
    prompt["sample"] = node("KSampler", **links, **settings)
    prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["load", 2])
    own = {"samples": ["sample", 0], "images": ["decode", 0], "report": ["check", 0]}
    parts = {"model": ["load", 0], "clip": ["load", 1], "positive": ["text", 0]}
    return prompt | {"heat": ours(comfy, "MemorizationHeatmap", **parts | own | changes)}


def found(comfy: Comfy, prompt: dict[str, Any]) -> list[Any]:
    return ran(comfy, prompt | {"keep": node("TestKeep", value=["heat", 1])}).outputs["heat"]


@pytest.mark.parametrize("text", TEMPLATES)
def test_the_mask_covers_the_memorized_figure(comfy: Comfy, text: str):
    gallery = Gallery.load()
    figure = gallery.masks[[c.text for c in gallery.captions].index(text)]
    overlay, mask, whole, share, report, words = found(comfy, heatmap(comfy, text))
    assert report["verdict"] == "memorized" and mask.shape == whole.shape == (1, 64, 64)
    area = mask[0].numpy() > 0
    assert (area & figure).sum() / (area | figure).sum() > 0.6
    assert share == pytest.approx(area.mean()) == pytest.approx(report["region"]["share"])
    assert whole.min() >= 0 and whole.max() == 1 and "likely memorized" in words
    assert overlay.ndim == 4 and overlay.shape[1] > 400 and float(overlay.std()) > 0.1


def test_a_benign_image_stays_dark_unless_asked(comfy: Comfy):
    _, mask, whole, share, report, words = found(comfy, heatmap(comfy, BENIGN))
    assert not mask.any() and share == report["region"]["share"] == 0 and whole.max() == 1
    assert "'clear'" in words
    _, mask, _, share, _, _ = found(comfy, heatmap(comfy, BENIGN, when="always"))
    assert mask.any() and share == pytest.approx(mask.mean().item())


def test_without_a_verdict_nothing_is_lit(comfy: Comfy):
    prompt = heatmap(comfy, TEMPLATES[0])
    prompt["check"]["inputs"]["calibration"] = "none"
    _, mask, _, share, report, words = found(comfy, prompt)
    assert not mask.any() and share == 0 and report["region"]["share"] is None and "'uncalibrated'" in words


def test_batches_and_seeds(comfy: Comfy):
    overlay, mask, whole, *_ = found(comfy, heatmap(comfy, TEMPLATES[1], batch=3, probes=2))
    assert len(overlay) == len(mask) == len(whole) == 3
    assert not torch.equal(whole[0], whole[1])
    again = found(comfy, heatmap(comfy, TEMPLATES[1], batch=3, probes=2))[2]
    assert np.array_equal(whole, again)


def test_the_image_of_another_batch_is_refused(comfy: Comfy):
    prompt = heatmap(comfy, BENIGN, batch=2)
    prompt["one"] = node("ImageFromBatch", image=["decode", 0], batch_index=0, length=1)
    prompt["heat"]["inputs"]["images"] = ["one", 0]
    line = complaint(comfy, prompt | {"keep": node("TestKeep", value=["heat", 1])})
    assert "1 images do not belong to a latent" in line


def test_where_a_check_is_not_applicable_nothing_is_lit(comfy: Comfy):
    """A conditioning without words, on the image that some prompt made."""
    prompt = heatmap(comfy, TEMPLATES[0], positive=["zero", 0])
    prompt["zero"] = node("ConditioningZeroOut", conditioning=["text", 0])
    _, mask, whole, share, _, words = found(comfy, prompt)
    assert not mask.any() and not whole.any() and share == 0 and words.startswith("not applicable")
