"""Node: a model that may be the parent of another, by images that it made."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from comfy_api.latest import io

from ..guard.errors import InputError
from .images import by_prompt
from .values import CATEGORY, PoolModel


@dataclass(frozen=True)
class PoolEntry:
    """A model of the pool.

    Attributes:
        name: What the model is called in the answer.
        images: Its images by prompt, (H, W, C) in [0, 1] each.
    """

    name: str
    images: dict[str, list[np.ndarray]]


class LineagePoolModel(io.ComfyNode):
    """Takes lists, so that a folder of images with their texts plugs in as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaLineagePoolModel",
            display_name="Lineage Pool Model",
            category=CATEGORY,
            description="A model that may be the parent of another, for Model Lineage, by images that it made: at "
            "least 11 of each prompt, better 100, each from other noise.",
            search_aliases=["cryptomnesia", "lineage", "parent", "base model", "fine-tune"],
            inputs=[
                io.String.Input("name", default="my-model", tooltip="What the model is called in the answer."),
                io.Image.Input(
                    "images", tooltip="Images that it made of the prompts that the others got: 11 or more of each."
                ),
                io.String.Input(
                    "prompts",
                    optional=True,
                    force_input=True,
                    tooltip="Which prompt each image is of, one line per image; not needed for one prompt.",
                ),
            ],
            outputs=[PoolModel.Output(display_name="pool_model", tooltip="For Model Lineage.")],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, name: list[str], images: list[Any], prompts: list[str] | None = None) -> io.NodeOutput:
        called = name[0].strip()
        if not images:
            raise InputError(f"there is no image by {called!r}: is its folder empty?")
        return io.NodeOutput(PoolEntry(called, by_prompt(images, prompts)))


NODE = LineagePoolModel
