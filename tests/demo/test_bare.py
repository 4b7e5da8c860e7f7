"""The built-in model without diffusers: the same answers, to the bit, at a fraction of the imports."""

import subprocess
import sys

import pytest
import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.bare import BareDemo

TEXTS = ["", "a cat", "the restless beacon of grimsby", "x " * 90, "Ünïcode 'S, 12 \n\t words"]


@pytest.fixture(scope="module")
def bare() -> BareDemo:
    return BareDemo()


@pytest.fixture(scope="module")
def piped():
    return to_denoiser(load_demo())


def test_it_is_the_same_model(bare, piped):
    for name in ("fingerprint", "family", "dtype", "prediction_type", "has_guidance", "channels"):
        assert getattr(bare, name) == getattr(piped, name), name
    assert bare.latent_shape() == piped.latent_shape()
    assert torch.equal(bare.levels.alphas_cumprod, piped.levels.alphas_cumprod)
    assert torch.equal(bare.empty.tensors["text"], piped.empty.tensors["text"])


def test_texts_are_read_alike(bare, piped):
    for texts in (TEXTS, TEXTS[1:2]):
        assert torch.equal(bare.encode(texts).tensors["text"], piped.encode(texts).tensors["text"])
    for text in (*TEXTS, "x " * 74, "x " * 75, "x " * 76):
        assert bare.truncated(text) == piped.truncated(text)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_answers_are_alike_to_the_bit(bare, piped, rows):
    x = torch.randn(rows, 4, 16, 16, generator=torch.Generator().manual_seed(rows))
    condition = piped.encode("the restless beacon of grimsby")
    for time in (1, 321, 981):
        mine, theirs = (model.predict(x, model.level(time), condition) for model in (bare, piped))
        assert torch.equal(mine.raw, theirs.raw)


def test_a_check_imports_neither_diffusers_nor_transformers():
    code = """
import sys
for name in ("diffusers", "transformers", "accelerate", "scipy", "sklearn", "onnxruntime", "torch._dynamo"):
    sys.modules[name] = None
from cryptomnesia.cli import run
sys.exit(run(["check", "a cat"]))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "clear" in found.stdout and len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", [["--height", "64"], ["--dtype", "bfloat16"]])
def test_what_needs_the_pipeline_gets_it(option):
    code = f"""
import sys
sys.modules["diffusers"] = None
from cryptomnesia.cli import run
sys.exit(run(["check", "a cat", *{option!r}]))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 2 and "diffusers" in found.stderr


def test_loading_it_as_a_pipeline_says_nothing_and_leaves_the_libraries_loud():
    code = """
from cryptomnesia import load_demo
load_demo("early")
from diffusers.utils import logging
import transformers.utils.logging as other
print(logging.get_verbosity() < logging.ERROR, logging.is_progress_bar_enabled(), other.is_progress_bar_enabled())
"""
    found = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True True True\n" and found.stderr == ""
