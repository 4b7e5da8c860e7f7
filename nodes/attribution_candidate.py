"""Node: a model that may have made an image, with images that it did make."""

from typing import Any

from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.adapters.comfyui_autoencoder import ComfyAutoencoder
from ..guard.attribution import Candidate as Model
from ..guard.errors import InputError
from . import inputs
from .attribution_learning import KnownCandidate
from .images import arrays, texts_of
from .values import CATEGORY, Candidate


class AttributionCandidate(io.ComfyNode):
    """Takes lists, so that a folder of images with their texts plugs in as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaAttributionCandidate",
            display_name="Attribution Candidate",
            category=CATEGORY,
            description="A model that may have made an image, with at least 8 images of its own, better 30: from them "
            "Attribute Image learns what the model's images look like to it.",
            search_aliases=["cryptomnesia", "attribution", "candidate", "who made this"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.Vae.Input("vae", tooltip="The VAE that decodes its latents."),
                io.String.Input("name", default="my-model", tooltip="What the model is called in the answer."),
                io.Image.Input(
                    "images", tooltip="Images that it made, unaltered: 8 or more, better 30, of many prompts."
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Their prompts, one per line, or one for all: the same for all candidates, or the answer "
                    "may go by what is shown. Needed if the image's prompt is given.",
                ),
            ],
            outputs=[Candidate.Output(display_name="candidate", tooltip="For Attribute Image.")],
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        clip: list[Any],
        vae: list[Any],
        name: list[str],
        images: list[Any],
        prompts: list[str] | None = None,
    ) -> io.NodeOutput:
        shown = arrays(images)
        if not shown:
            raise InputError(f"there is no image by {name[0]!r}: is its folder empty?")
        coder = ComfyAutoencoder(vae[0], model[0])
        height, width = (side // coder.factor * coder.factor for side in shown[0].shape[:2])
        made = Model(name[0].strip(), ComfyDenoiser(model[0], clip[0]), coder, (height, width))
        return io.NodeOutput(KnownCandidate(made, shown, texts_of(prompts, len(shown))))


NODE = AttributionCandidate
