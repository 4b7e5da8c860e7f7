"""Node: changes as few words of a prompt as it takes until the model no longer reproduces the image."""

from typing import Any

from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from . import inputs, outputs
from .calibrations import CalibratedNode
from .inputs import OFF
from .mitigating import mitigated
from .shown import on_node, verdict
from .values import CATEGORY, OFF_TEXT, described


class RewritePrompt(CalibratedNode):
    """Edits the words of a prompt that is flagged, as `guard.mitigation.rewrite` does, and encodes it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaRewritePrompt",
            display_name="Rewrite Prompt",
            category=CATEGORY,
            description="Use it in place of CLIP Text Encode: a prompt that the model is about to reproduce training "
            "data for has the words that trigger it dropped, swapped or moved, as few as will do, and is tested again "
            "on fresh noise. Other prompts pass unchanged.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "prompt", "rewrite", "text encode"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
                inputs.latent(),
                inputs.when(off=True),
                inputs.calibration(optional=False),
                inputs.check_seed(),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Not read: it is what comes out where this node is bypassed. Connect CLIP Text Encode of "
                    "the same prompt.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The prompt, rewritten or as it was."),
                io.Conditioning.Output(display_name="positive", tooltip="The same, encoded, for the sampler."),
                io.String.Output(display_name="changes", tooltip="What was changed, in plain words."),
                outputs.report(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        text: str,
        latent: Any,
        when: str,
        calibration: str,
        check_seed: int,
        positive: Any = None,
    ) -> io.NodeOutput:
        denoiser = ComfyDenoiser(model, clip)
        if when == OFF:
            return io.NodeOutput(text, denoiser.conditioning(text), OFF_TEXT, None, ui=on_node(verdict(None)))
        report, better = mitigated(
            denoiser,
            latent,
            text,
            denoiser.encode(text),
            method="rewrite",
            when=when,
            calibration=calibration,
            seed=check_seed,
        )
        written = text if better is None or report.prompt is None else report.prompt
        document = report.to_dict()
        return io.NodeOutput(
            written, denoiser.conditioning(written), described(document), document, ui=on_node(verdict(document))
        )


NODE = RewritePrompt
