"""Node: which of these models does another one come from, or none of them? By images alone."""

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..guard.adapters.comfyui_images import ComfyVisionEncoder
from ..guard.errors import InputError
from ..guard.lineage import Parentage, find_parent
from ..guard.lineage.parentage import UNTESTED
from . import outputs
from .images import by_prompt, notice, picture
from .lineage_pool_model import PoolEntry
from .values import CATEGORY, PoolModel

NONE = "Model Lineage needs models that may be the parent, and none came in: nothing was asked. Are they muted?"


class ModelLineage(io.ComfyNode):
    """Takes lists, so that a folder of images with their texts plugs in as it is; see `guard.lineage`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaModelLineage",
            display_name="Model Lineage",
            category=CATEGORY,
            description="Which model of a pool was another one likely fine-tuned from, or none of them? Looks at "
            "nothing but images that each made of the same prompts, so it works for models behind a service, too.",
            search_aliases=["cryptomnesia", "lineage", "parent", "base model", "fine-tune", "derived", "provenance"],
            inputs=[
                io.Image.Input(
                    "images", tooltip="Images by the model in question: 11 or more of each prompt, better 100."
                ),
                io.Autogrow.Input(
                    "pool",
                    template=io.Autogrow.TemplatePrefix(
                        PoolModel.Input("model", tooltip="From Lineage Pool Model."),
                        prefix="model",
                        min=0,  # a model that is muted is not sent: the workflow runs without it
                        max=32,
                    ),
                    tooltip="Models that may be its parent, each from Lineage Pool Model; fewer than three cannot "
                    "be tested.",
                ),
                io.String.Input(
                    "prompts",
                    optional=True,
                    force_input=True,
                    tooltip="Which prompt each image is of, one line per image; not needed for one prompt. Best eight.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="What looks at the images, in place of the built-in encoder, which knows small drawings; "
                    "for photographs connect Load CLIP Vision.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="Distances to the pool, and the line from which none is."),
                io.String.Output(
                    display_name="parent", tooltip="A name, 'none of these', 'not tested' or 'no majority'."
                ),
                outputs.answer(),
                outputs.finding(),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        pool: dict[str, list[PoolEntry]] | None = None,
        prompts: list[str] | None = None,
        clip_vision: list[Any] | None = None,
    ) -> io.NodeOutput:
        if not pool:
            return io.NodeOutput(notice(NONE), UNTESTED, NONE, [])
        models = _by_name([entry for entries in pool.values() for entry in entries])
        target = by_prompt(images, prompts)
        bar = comfy.utils.ProgressBar(
            sum(len(images) for shown in (target, *models.values()) for images in shown.values())
        )
        encoder = ComfyVisionEncoder(clip_vision[0]) if clip_vision else None
        parentage = find_parent(target, models, encoder=encoder, progress=bar.update_absolute)
        return io.NodeOutput(picture(parentage.plot()), parentage.decision, _words(parentage), [parentage.to_dict()])


def _by_name(pool: list[PoolEntry]) -> dict[str, Any]:
    """Returns images by prompt, by model. Raises InputError for two models of one name."""
    images: dict[str, Any] = {}
    for entry in pool:
        if entry.name in images:
            raise InputError(f"two models of the pool are called {entry.name!r}: rename one")
        images[entry.name] = entry.images
    return images


def _words(parentage: Parentage) -> str:
    """Returns the answer in plain words, nearest first."""
    nearest = sorted(parentage.distances.items(), key=lambda item: item[1])
    lines = [f"{parentage.headline()}.", *(f"  {distance:.2f}  {name}" for name, distance in nearest)]
    if parentage.null_threshold is not None:
        lines.append(f"  {parentage.null_threshold:.2f}  a parent is nearer than this")
    return "\n".join([*lines, *parentage.notes()])


NODE = ModelLineage
