"""Images inside a page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.pages.images import data_uri, difference


def test_data_uri_holds_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    head, data = data_uri(image).split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)


def test_difference_of_images():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    assert difference(images) == 0 and difference(images[:1]) is None
    images[2] = 255
    assert difference(images) == pytest.approx(2 / 3)
