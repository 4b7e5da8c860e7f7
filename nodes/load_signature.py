"""Node: a signature from a file."""

from typing import Any

from comfy_api.latest import io

from ..guard.attribution.library import SUFFIX, Signatures
from . import folder, outputs
from .spectral_signature import plot_of, words_of
from .values import CATEGORY, Signature


class LoadSignature(io.ComfyNode):
    """Reads a file in models/cryptomnesia; see `guard.attribution.library`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaLoadSignature",
            display_name="Load Signature",
            category=CATEGORY,
            description="Reads what Save Signature or `cryptomnesia signature` wrote to models/cryptomnesia.",
            search_aliases=["cryptomnesia", "signature"],
            inputs=[io.Combo.Input("file", options=folder.names(SUFFIX), tooltip="In the folder models/cryptomnesia.")],
            outputs=[
                Signature.Output(display_name="signature", tooltip="As it was saved."),
                outputs.signature_plot(),
                io.String.Output(display_name="text", tooltip="Model and plan of the signature, in plain words."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return folder.state([file])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        signatures = Signatures.load(folder.path_of(file))
        return io.NodeOutput(signatures, plot_of(signatures), words_of(signatures))


NODE = LoadSignature
