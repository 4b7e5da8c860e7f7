"""Node: moves a prompt's embedding until the model no longer reproduces the image."""

from typing import Any

from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from . import inputs, outputs
from .calibrations import CalibratedNode
from .inputs import OFF
from .mitigating import mitigated
from .shown import on_node, verdict
from .tracing import text_behind
from .values import CATEGORY, OFF_TEXT, described


class MitigateConditioning(CalibratedNode):
    """Moves the embedding of a prompt that is flagged, as `guard.mitigation.embedding` does; its words stay."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaMitigateConditioning",
            display_name="Mitigate Conditioning",
            category=CATEGORY,
            description="Keeps the words and moves their embedding until guidance neither looks memorized nor pulls to "
            "the same image, and tests that on fresh noise. Areas, masks and ControlNets stay.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "mitigate", "embedding optimization"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.Conditioning.Input("positive", tooltip="The prompt to mitigate."),
                inputs.latent(),
                inputs.when(off=True),
                inputs.calibration(optional=False),
                inputs.check_seed(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Mitigated, or as it was."),
                outputs.report(),
                io.String.Output(display_name="text", tooltip="What was done, in plain words."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, positive: Any, latent: Any, when: str, calibration: str, check_seed: int
    ) -> io.NodeOutput:
        if when == OFF:
            return io.NodeOutput(positive, None, OFF_TEXT, ui=on_node(verdict(None)))
        denoiser = ComfyDenoiser(model, clip, like=positive)
        condition = denoiser.read(positive)
        report, better = mitigated(
            denoiser,
            latent,
            text_behind(cls, "positive"),
            condition,
            method="embed",
            when=when,
            calibration=calibration,
            seed=check_seed,
        )
        conditioning = positive if better is None else denoiser.write(better)
        document = report.to_dict()
        return io.NodeOutput(conditioning, document, described(document), ui=on_node(verdict(document)))


NODE = MitigateConditioning
