"""Node: keeps a signature in a file."""

from typing import Any

from comfy_api.latest import io

from ..guard.attribution.library import SUFFIX
from . import folder
from .values import CATEGORY, Signature


class SaveSignature(io.ComfyNode):
    """Writes to models/cryptomnesia, as NAME.signature.safetensors."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaSaveSignature",
            display_name="Save Signature",
            category=CATEGORY,
            description="Keeps a signature in models/cryptomnesia, for Load Signature and `cryptomnesia identify`.",
            search_aliases=["cryptomnesia", "signature"],
            inputs=[
                Signature.Input(
                    "signature",
                    optional=True,  # so that the workflow runs where the node before is bypassed or muted
                    tooltip="From Spectral Signature.",
                ),
                io.String.Input("name", default="my-model", tooltip="The file's name; one that is there is replaced."),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, name: str, signature: Any = None) -> io.NodeOutput:
        if signature is None:
            return io.NodeOutput("", ui={"text": ["nothing was kept: no signature came in"]})
        path = folder.new_file(name, SUFFIX)
        signature.save(path)
        return io.NodeOutput(path.name, ui={"text": [path.name]})


NODE = SaveSignature
