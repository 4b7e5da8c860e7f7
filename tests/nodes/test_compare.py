"""Is it a copy of one of these: asked in the real ComfyUI."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps

from cryptomnesia.sidecar import read_statement, sidecar_path, verify

from ..helpers.drawn import drawn
from .graphs import given, keep, ours, part, ran
from .harness import Comfy


def tensor(*images: Any) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 255


def asking(comfy: Comfy, *images: Any) -> dict[str, Any]:
    links = {"images": ["images", 0], "references": ["references", 0], "alpha": 0.01}
    return {
        "images": given(comfy, tensor(*images)),
        "references": given(comfy, tensor(*(drawn(number) for number in range(4)))),
        "compare": ours(comfy, "CompareReferences", **links),
        "kept": keep("compare"),
    }


def test_copies_are_told_shown_and_written_down(comfy: Comfy, output: Path, monkeypatch: pytest.MonkeyPatch):
    prompt = asking(comfy, ImageOps.mirror(drawn(2)), drawn(5000))
    links = {"images": ["images", 0], "findings.finding0": ["compare", 3]}
    prompt["save"] = ours(comfy, "SaveImage", **links, filename_prefix="made")
    plot, kind, text, findings, masks = ran(comfy, prompt).outputs["compare"]
    assert kind.splitlines() == ["same picture", "none"] and len(findings) == 2
    assert plot.shape[0] == 2 and plot.shape[-1] == 3 and float(plot.std()) > 0.05
    assert "image 1: The same picture as image 3, flipped" in text and "too few for a p-value" in text
    assert [tuple(mask.shape) for mask in masks] == [(1, 160, 160)] * 2
    assert float(masks[0].mean()) > 0.95 and float(masks[1].sum()) == 0
    for number, words in (
        (1, "the same picture as image 3, flipped"),
        (2, "no verdict on whether the image is a copy"),
    ):
        image = output / f"made_0000{number}_.png"
        (found,) = read_statement(sidecar_path(image))["predicate"]["findings"]
        assert found["kind"] == "comparison" and found["references"] == 4
        assert any(words in line for line in verify(image).lines)
    # references that did not change are not measured again
    monkeypatch.setattr(part(comfy, "nodes.compare_references").ReferenceIndex, "build", None)
    (_, kind, *_) = ran(comfy, asking(comfy, drawn(1))).outputs["compare"]
    assert kind == "same picture"
