"""Node: the built-in model."""

import folder_paths
from comfy_api.latest import io

from ..guard.demo.comfyui import load_demo_comfyui
from .values import CATEGORY


class LoadDemoModel(io.ComfyNode):
    """MODEL, CLIP and VAE that come with the pack: 64 x 64 pixels, some of its training images memorized."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaLoadDemoModel",
            display_name="Load Demo Model",
            category=CATEGORY,
            description="A small model that comes with the pack and has really memorized some of its training images. "
            "Make 64 x 64 images with it; swap this node for your checkpoint loader to check your own model.",
            search_aliases=["cryptomnesia", "memorization demo", "built-in model"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=["final", "early"],
                    default="final",
                    tooltip="early: the same training before the model had memorized anything.",
                )
            ],
            outputs=[
                io.Model.Output(tooltip="For 64 x 64 images."),
                io.Clip.Output(tooltip="Reads the prompts of the model."),
                io.Vae.Output(tooltip="Turns its latents into images."),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        return io.NodeOutput(*load_demo_comfyui(checkpoint, folder_paths.get_folder_paths("embeddings")))  # type: ignore[arg-type]


NODE = LoadDemoModel
