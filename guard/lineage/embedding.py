"""Turns the images of models and prompts into vectors, a few at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..encoders import Embeddings, Encoder
from ..pixels import read_picture
from ..progress import Progress
from .sources import Distinct

PER_CALL = 16  # images in memory


class Embedder:
    """Turns images into vectors, counts them, and notes those that are there twice."""

    def __init__(self, encoder: Encoder, distinct: Distinct, total: int, progress: Progress | None):
        self.encoder, self.distinct, self.progress = encoder, distinct, progress
        self.done, self.total = 0, total

    def embed(self, name: str, prompt: str, images: Sequence[Any]) -> Embeddings:
        """Returns the vectors (n, D) of n images of a model and prompt."""
        parts = []
        for start in range(0, len(images), PER_CALL):
            given = images[start : start + PER_CALL]
            pictures = [read_picture(image, f"an image by {name}") for image in given]
            self.distinct.add(name, prompt, pictures, given)
            parts.append(self.encoder.encode(pictures))
            self.done += len(pictures)
            if self.progress is not None:
                self.progress(self.done, self.total)
        return np.concatenate(parts)
