"""Node: is an image a copy of one of these references?"""

import hashlib
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..guard.printable import printable
from ..guard.similarity import ReferenceIndex, compare
from ..guard.similarity.compare import ALPHA
from . import inputs, outputs
from .images import arrays, pictures
from .values import CATEGORY

_last: dict[str, ReferenceIndex] = {}  # what was measured of the references of the last run


class CompareReferences(io.ComfyNode):
    """Takes lists, so that folders of images plug in as they are; see `guard.similarity`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaCompareReferences",
            display_name="Compare with References",
            category=CATEGORY,
            description="Is an image a copy of one of these references, or of a part of one? Finds what was cropped, "
            "flipped, recoloured or drawn anew from memory. Needs no model.",
            search_aliases=["cryptomnesia", "copy", "similarity", "duplicate", "reverse image search"],
            inputs=[
                io.Image.Input("images", tooltip="The images in question."),
                io.Image.Input(
                    "references",
                    tooltip="The images that they may be copies of. From 100 on p-values can be small enough to tell, "
                    "from 400 on for parts, too.",
                ),
                inputs.alpha(ALPHA, "Share of unrelated images that may be called copies."),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="Each image beside the reference that is nearest to it."),
                io.String.Output(
                    display_name="kind", tooltip="A line for each image: 'same picture', 'same part' or 'none'."
                ),
                outputs.answer(),
                outputs.finding(),
                io.Mask.Output(
                    display_name="masks",
                    is_output_list=True,
                    tooltip="What of each image is alike; empty without a copy.",
                ),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, images: list[Any], references: list[Any], alpha: list[float]) -> io.NodeOutput:
        suspects, others = _pictures(images), _pictures(references)
        bar = comfy.utils.ProgressBar(len(suspects) + 2 * len(others))
        answer = compare(suspects, _index(others), alpha=alpha[0], progress=lambda done, _: bar.update_absolute(done))
        lines = [answer.headline() + ".", *answer.notes()]
        for number, image in enumerate(answer.images, 1):
            p_value = "" if image.p_value is None else f" (p = {image.p_value:.2g})"
            lines += ["", f"image {number}: {image.headline()}{p_value}.", *image.notes()]
        return io.NodeOutput(
            pictures([image.plot() for image in answer.images]),
            "\n".join(image.kind for image in answer.images),
            printable_lines(lines),
            [image.to_dict() for image in answer.images],
            [_mask(image, suspect) for image, suspect in zip(answer.images, suspects, strict=True)],
        )


def printable_lines(lines: list[str]) -> str:
    """Returns lines without characters that are not to be seen."""
    return "\n".join(printable(line, 1000) for line in lines)


def _pictures(batches: list[Any]) -> list[Any]:
    """IMAGE tensors as Pillow images, RGB or RGBA; NaN counts as black."""
    found = []
    for array in arrays(batches):
        pixels = (np.nan_to_num(array) * 255).round().astype(np.uint8)
        found.append(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    return found


def _index(references: list[Any]) -> ReferenceIndex:
    """What the references look like; of those of the last run it is known."""
    digest = hashlib.sha256()
    for image in references:
        digest.update(repr((image.size, image.mode)).encode() + image.tobytes())
    key = digest.hexdigest()
    if key not in _last:
        index = ReferenceIndex.build(references)
        _last.clear()
        _last[key] = index
    return _last[key]


def _mask(image: Any, suspect: Any) -> torch.Tensor:
    region = image.nearest[0].region if image.copy else None
    if region is None:
        return torch.zeros(1, suspect.height, suspect.width)
    return torch.from_numpy(region.copy()).float()[None]


NODE = CompareReferences
