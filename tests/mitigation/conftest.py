"""What tests of mitigation share: the built-in model as it ships."""

import pytest

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import demo_calibration


@pytest.fixture(scope="module")
def demo():
    pipe = load_demo()
    for part in (pipe.unet, pipe.text_encoder):
        part.requires_grad_(False)
    return to_denoiser(pipe), demo_calibration()
