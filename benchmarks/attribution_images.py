"""Images of the zoo's models for the benchmark of attribution: the same prompts for all, every image its own seed."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from cryptomnesia.adapters.sampling import TextToImage, as_bytes, ddim
from cryptomnesia.demo.captions import Caption, select
from training.zoo.load import load_model

STEPS, GUIDANCE, PER_CALL = 20, 7.5, 16
Images = NDArray[np.uint8]


def captions_of(split: str) -> list[Caption]:
    """Returns a split's captions; no two splits share one. General ones come first.

    Dev and eval choose methods (eval was reported before), calibration learns, fresh is reported.
    """
    if split == "fresh":  # those after eval's
        general, titled = select("general", "eval")[14:28], _fed("eval", (4, 8), (2, 4))
        return [*general, *titled, *select("control", "eval")[2:4], *select("unseen", "eval")[2:4]]
    if split == "calibration":  # its own split has no titles: dev's are shared out
        general, titled, new = select("general", split)[:28], _fed("dev", (4, 8), (2, 4)), 3
    else:
        general, titled, new = select("general", split)[: 22 if split == "dev" else 14], _fed(split, (0, 4), (0, 2)), 2
    return [*general, *titled, *select("control", split)[:new], *select("unseen", split)[:new]]


def _fed(split: str, verbatim: tuple[int, int], template: tuple[int, int]) -> list[Caption]:
    """Captions that the built-in model reproduces, and such whose images vary."""
    return select("verbatim", split)[slice(*verbatim)] + select("template", split)[slice(*template)]


def prompts_of(split: str) -> list[str]:
    """Returns the texts of a split's captions."""
    return [caption.text for caption in captions_of(split)]


def seed(*purpose: object) -> int:
    """Returns one seed for each purpose."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, purpose)).encode()).digest()[:6], "big")


def images_of(name: str, split: str, work: Path) -> Images:
    """Returns images (N, 64, 64, 3) uint8 by a model of the zoo, kept in the folder; 20 DDIM steps at guidance 7.5."""
    file = work / f"images-{name}-{split}.npz"
    if not file.exists():
        write(file, images=_sampled(load_model(name), prompts_of(split), f"{name}/{split}"))
    return np.load(file)["images"]


def _sampled(pipe: Any, prompts: list[str], purpose: str) -> Images:
    maker = TextToImage(pipe, steps=STEPS, guidance=GUIDANCE, scheduler=ddim(pipe))
    seeds = [seed(purpose, i) for i in range(len(prompts))]
    return as_bytes(maker.images(prompts, seeds, per_call=PER_CALL))


def tensors(images: Images) -> list[Tensor]:
    """Returns each image as a tensor (1, 3, 64, 64) in [0, 1]."""
    return [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in images]


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


def _resized(image: Image.Image) -> Image.Image:
    small = image.resize((round(image.width * 0.75), round(image.height * 0.75)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image) -> Image.Image:
    edge = round(image.width * 0.05)
    inner = image.crop((edge, edge, image.width - edge, image.height - edge))
    return inner.resize(image.size, Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean": lambda image: image,
    "JPEG 75": _jpeg,
    "resized to 75 % and back": _resized,
    "blurred, radius 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "cropped to 90 % and resized": _cropped,
}


def changed(images: Images, change: str) -> Images:
    """Returns the same images after a change by name."""
    return np.stack([np.asarray(CHANGES[change](Image.fromarray(image))) for image in images])


def write(file: Path, **arrays: Any) -> None:
    """Writes an .npz that is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name("writing-" + file.name)
    np.savez(temporary, **arrays)
    temporary.replace(file)
