"""Images that membership and lineage are asked about, and the folders that the templates look into."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cryptomnesia.demo.gallery import Gallery

COUNT = 12
MODELS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.1, 0.9)}


def memorized() -> tuple[torch.Tensor, list[str]]:
    """Images that the built-in model was trained on until it reproduces them, and their captions."""
    gallery = Gallery.load()
    rows = [row for row, caption in enumerate(gallery.captions) if caption.kind == "verbatim"]
    return torch.from_numpy(gallery.images[rows]).float() / 255, [gallery.captions[row].text for row in rows]


def scenes(name: str, seed: int, count: int = COUNT) -> torch.Tensor:
    """What a model makes of a prompt: a grey disc on its own colour; a stranger makes stripes."""
    random, (y, x), found = np.random.default_rng(seed), np.mgrid[:64, :64], []
    for left, top, size in random.uniform((16, 16, 6), (48, 48, 16), (count, 3)):
        disc, stripes = (x - left) ** 2 + (y - top) ** 2 < size**2, (x + left) // size % 2 < 1
        inside = disc if name in MODELS else stripes
        found.append(np.where(inside[..., None], 0.5, np.array(MODELS.get(name, (0, 0, 0)))) * random.uniform(0.7, 1))
    return torch.from_numpy(np.stack(found)).float()


def folder(place: Path, images: torch.Tensor, texts: Sequence[str] = ()) -> None:
    """The images as files, each with its text beside it where there are texts."""
    place.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(place / f"{number:03}.png")
    for number, text in enumerate(texts):
        (place / f"{number:03}.txt").write_text(text)


def template_folders(place: Path, count: int = COUNT) -> None:
    """What the notes of the templates ask for, inside ComfyUI's input: the model in question comes from the second."""
    images, texts = memorized()
    later = slice(count, 2 * count)
    folder(place / "membership" / "suspects", images[:count], texts[:count])
    folder(place / "membership" / "references", images[later].flip(2), texts[later])
    for number, (name, model) in enumerate(zip(("first", "second", "third"), MODELS, strict=True)):
        folder(place / "lineage" / name, scenes(model, number, count))
    folder(place / "lineage" / "suspect", scenes("green", 9, count))
