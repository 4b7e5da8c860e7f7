"""Node: which frequencies does a model get wrong?"""

from typing import Any

import torch
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.attribution.library import Signatures
from ..guard.attribution.plots import signature_plot
from ..guard.errors import InputError
from . import inputs, outputs
from .images import picture
from .values import CATEGORY, Signature, still


class SpectralSignature(io.ComfyNode):
    """Measures a signature as `guard.signals.spectral` does, of each image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaSpectralSignature",
            display_name="Spectral Signature",
            category=CATEGORY,
            description="Which frequencies a model's denoiser gets wrong when the noise has one band only: a signature "
            "that tells models apart. Measured on latents of images that the model made.",
            search_aliases=["cryptomnesia", "signature", "attribution", "fingerprint"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.Latent.Input("samples", tooltip="What the sampler gave, a batch of one image or more."),
                io.String.Input("name", default="my-model", tooltip="What the model is called in a library."),
                io.Combo.Input(
                    "plan", options=["5step", "1step"], tooltip="Noise levels: five tell more, one costs a fifth."
                ),
            ],
            outputs=[
                Signature.Output(display_name="signature", tooltip="For Save Signature."),
                outputs.signature_plot(),
                io.String.Output(display_name="text", tooltip="What was measured, in plain words."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, samples: Any, name: str, plan: Any) -> io.NodeOutput:
        denoiser = ComfyDenoiser(model, clip)
        latents = still(model.model.process_latent_in(samples["samples"]).float())
        if not latents.any():
            raise InputError("a signature is measured on images: connect what a sampler gave, not an empty latent")
        signatures = Signatures.measure(denoiser, latents, name, plan=plan)
        return io.NodeOutput(signatures, plot_of(signatures), words_of(signatures))


def plot_of(signatures: Signatures) -> torch.Tensor:
    """Returns a picture of the mean signature, (1, H, W, 3) in [0, 1]."""
    title = f"Spectral signature of {signatures.name}"
    return picture(signature_plot(signatures.values, plan=signatures.plan, title=title))


def words_of(signatures: Signatures) -> str:
    """Returns model and plan of signatures, in plain words."""
    about = f"{signatures.n} signatures of plan {signatures.plan}, model {signatures.fingerprint[:12]}"
    return f"{signatures.name}: {about}"


NODE = SpectralSignature
