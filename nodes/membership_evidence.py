"""Node: was a model likely trained on some of these images?"""

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..guard.adapters.comfyui_images import ComfyImageDenoiser
from ..guard.membership import METHODS, Settings, Store, membership_test
from ..guard.membership.result import ALPHA
from ..guard.membership.settings import DRAWS, FEATURES, METHOD
from . import inputs, outputs
from .images import arrays, picture, texts_of
from .values import CATEGORY

_store = Store()  # what was measured of images, while ComfyUI runs


class MembershipEvidence(io.ComfyNode):
    """Takes lists, so that folders of images with their texts plug in as they are; see `guard.membership`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaMembershipEvidence",
            display_name="Membership Evidence",
            category=CATEGORY,
            description="Was a model likely trained on some of these images? Compares them with images of the same "
            "kind that it surely was not trained on: a p-value for the whole set, nothing about a single image.",
            search_aliases=["cryptomnesia", "membership", "training data", "trained on", "dataset inference"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                io.Image.Input(
                    "suspects",
                    tooltip="The images in question: 10 or more, better 70; about 1,000 for a large pretrained model.",
                ),
                io.Image.Input(
                    "references",
                    tooltip="Images that it surely was not trained on, of the same source, style, size and quality: "
                    "10 or more, better 70.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=32,
                    max=4096,
                    step=8,
                    tooltip="Side in pixels of the squares that images are brought to. What the model was trained on: "
                    "512 for Stable Diffusion 1.5, 1024 for SDXL, 64 for the built-in model.",
                ),
                io.Combo.Input(
                    "method", options=list(METHODS), default=METHOD, tooltip="What is measured of each image."
                ),
                io.Int.Input(
                    "draws", default=DRAWS, min=1, max=64, tooltip="Noised versions of each image; more say more."
                ),
                inputs.alpha(ALPHA, "Share of sets without any training image that may be called likely."),
                io.String.Input(
                    "suspect_prompts",
                    optional=True,
                    force_input=True,
                    tooltip="Their prompts, one per line, or one for all: much stronger evidence. Both, or neither.",
                ),
                io.String.Input(
                    "reference_prompts", optional=True, force_input=True, tooltip="The references' prompts, likewise."
                ),
                io.Combo.Input(
                    "features",
                    options=list(FEATURES),
                    default=FEATURES[0],
                    optional=True,
                    tooltip="'gradients' adds the norm of each layer's gradient and learns from both sets: four times "
                    "the work and more memory, for a model that betrays little.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="What was measured, of suspects and of references."),
                io.String.Output(
                    display_name="verdict",
                    tooltip="'likely trained on some of these', 'no evidence', 'confounded', or "
                    "'generated, not trained on'.",
                ),
                outputs.answer(),
                outputs.finding(),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        clip: list[Any],
        vae: list[Any],
        suspects: list[Any],
        references: list[Any],
        size: list[int],
        method: list[str],
        draws: list[int],
        alpha: list[float],
        suspect_prompts: list[str] | None = None,
        reference_prompts: list[str] | None = None,
        features: list[Any] | None = None,
    ) -> io.NodeOutput:
        denoiser = ComfyImageDenoiser(model[0], clip[0], vae[0], (size[0], size[0]))
        suspected, others = arrays(suspects), arrays(references)
        bar = comfy.utils.ProgressBar(len(suspected) + len(others))
        evidence = membership_test(
            denoiser,
            suspected,
            others,
            suspect_prompts=texts_of(suspect_prompts, len(suspected)),
            reference_prompts=texts_of(reference_prompts, len(others)),
            settings=Settings(method[0], draws=draws[0], features=(features or FEATURES)[0]),
            alpha=alpha[0],
            size=denoiser.size,
            store=_store,
            progress=lambda *_: bar.update(1),
        )
        text = "\n".join([f"{evidence.headline()}.", *evidence.notes()])
        return io.NodeOutput(picture(evidence.plot()), evidence.verdict, text, [evidence.to_dict()])


NODE = MembershipEvidence
