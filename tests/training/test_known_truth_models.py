"""The models of known truth that are stored open, draw, and are the files that were measured."""

import hashlib

import numpy as np
import pytest
import torch

from benchmarks.known_truth import NAMES, WEIGHTS, load
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery, rms
from cryptomnesia.errors import InputError

SCALES = {"scale-input": 7.5, "scale-baked-in": 1.0, "four-steps": 1.0, "flow": 3.0}
LIMIT = 0.12  # of distances between images of one thing; others are three times as far


def test_the_weights_are_those_that_were_measured():
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    stored = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.relative_to(WEIGHTS).as_posix(): path for path in WEIGHTS.rglob("*.safetensors")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == stored


@pytest.mark.parametrize("name", NAMES)
def test_they_draw_what_they_memorized(name):
    gallery, captions = Gallery.load(), select("verbatim", "eval")[:4]
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    how = {"num_inference_steps": 4 if name == "four-steps" else 12, "guidance_scale": SCALES[name]}
    made = load(name)([c.text for c in captions], generator=generators, height=64, width=64, output_type="np", **how)
    images = (made.images * 255).round().astype(np.uint8)
    numbers = [gallery.captions.index(caption) for caption in captions]
    distances = rms(images, gallery.images[numbers], gallery.masks[numbers])
    own = np.diag(distances)
    assert (own < distances + np.eye(4)).all() and np.median(own) < LIMIT


def test_another_name_is_refused():
    with pytest.raises(InputError, match="scale-input, scale-baked-in, four-steps, flow"):
        load("turbo")
