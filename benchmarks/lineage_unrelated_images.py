"""Images of many tiny models, of the flow model with its children and of the zoo, as embeddings kept in a folder."""

import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cryptomnesia.adapters.sampling import TextToImage, as_bytes, ddim
from cryptomnesia.demo.captions import select
from cryptomnesia.encoders import open_encoder
from cryptomnesia.lineage.multiscale import MultiScale
from cryptomnesia.signals.lineage import Array
from training import flow_children
from training.flow_captions import wordings
from training.zoo import styles, unrelated
from training.zoo.load import load_model

from . import lineage_images
from .attribution_images import tensors, write

IMAGES = 30
STEPS, GUIDANCE = 10, 2.0
SCALES = (1, 2)
# prompts that the zoo's models know, asked of them alone: the second set was looked at as a reported one, and given up
ZOO_DEV, ZOO = ("zoodev", "zoo"), "zoofresh"


def prompts(split: str) -> list[str]:
    """Returns the prompts of a split: eight, of "eval" four in each of two wordings that "dev" lacks; zoo: four."""
    if split == ZOO_DEV[0]:
        return list(lineage_images.PROMPTS["natural, dev"][6:10])
    if split in (ZOO_DEV[1], ZOO):
        used = {text for texts in lineage_images.PROMPTS.values() for text in texts}
        fresh = [caption.text for caption in select("general", "eval") if caption.text not in used]
        first = random.Random("lineage/unrelated/zoo").sample(fresh, 4)
        left = [text for text in fresh if text not in first]
        return first if split == ZOO_DEV[1] else random.Random("lineage/unrelated/zoo, second").sample(left, 4)
    chosen = random.Random(f"lineage/unrelated/{split}").sample(styles.captions(split), 8)
    words = [0] * 8 if split == "dev" else [1] * 4 + [2] * 4
    return [wordings(caption)[word] for caption, word in zip(chosen, words, strict=True)]


def embeddings(name: str, split: str, work: Path) -> Array:
    """Returns (8, IMAGES, D) embeddings at two scales of a model's images; half of D is of the first scale."""
    file = work / f"embeddings-{name}-{split}.npz"
    if not file.exists():
        shown = images(name, split, work)
        encoder = MultiScale(open_encoder(), SCALES)
        write(file, values=np.stack([encoder.encode(tensors(rows)) for rows in shown]))
    return np.load(file)["values"]


def images(name: str, split: str, work: Path) -> np.ndarray:
    """Returns images (8, IMAGES, 64, 64, 3) uint8 by a model, which are kept."""
    file = work / f"images-{name}-{split}.npz"
    if not file.exists():
        made = [
            _made(name, [text] * IMAGES, f"{name}/{split}/{number}", split, work)
            for number, text in enumerate(prompts(split))
        ]
        write(file, images=np.stack(made))
        print(f"{name}: images of {split}", flush=True)
    return np.load(file)["images"]


def _made(name: str, texts: list[str], purpose: str, split: str, work: Path) -> Any:
    seed = zlib.crc32(purpose.encode())
    if split in (*ZOO_DEV, ZOO):
        pipe = load_model(name)
        maker = TextToImage(pipe, steps=STEPS, guidance=lineage_images.GUIDANCE["natural"], scheduler=ddim(pipe))
        return as_bytes(maker.images(texts, [seed + number for number in range(len(texts))], per_call=20))
    if name in flow_children.NAMES:
        network = flow_children.load(name, work)
        return unrelated.decoded(flow_children.sample(network, texts, seed, STEPS, flow_children.GUIDANCE))
    model = styles.model(name)
    return unrelated.decoded(unrelated.sample(model, unrelated.load(model, work), texts, seed, STEPS, GUIDANCE))
