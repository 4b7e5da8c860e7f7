"""Node: is the model about to reproduce training data for this prompt?"""

import math
from typing import Any

from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.errors import NotApplicable
from ..guard.guard import Guard
from ..guard.report import MemorizationReport
from ..guard.verdict import not_applicable
from . import calibrations, inputs, outputs
from .calibrations import CalibratedNode
from .shown import on_node, verdict
from .tracing import text_behind
from .values import CATEGORY, Report, described, noted, start_shape, worst_of


class MemorizationCheck(CalibratedNode):
    """Looks at the model from pure noise, before anything is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaMemorizationCheck",
            display_name="Memorization Check",
            category=CATEGORY,
            description="Tells, before sampling, whether the model is about to reproduce training data for this "
            "prompt. Costs two rows of the network per draw; a 50-step image costs 100.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "memorized", "training data", "plagiarism", "regurgitation"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.positive(),
                inputs.latent(),
                inputs.draws(),
                inputs.check_seed(),
                inputs.calibration(),
                io.Boolean.Input(
                    "alignment",
                    default=False,
                    optional=True,
                    tooltip="Also measure how guidance is aligned near the end of the schedule (arXiv 2601.20642). "
                    "Takes part in no verdict, and doubles the cost.",
                ),
            ],
            outputs=[
                Report.Output(display_name="report", tooltip="For Memorization Gate and Save Image with Provenance."),
                io.Float.Output(display_name="score", tooltip="Higher: more likely memorized. NaN if not applicable."),
                io.Float.Output(
                    display_name="p_value", tooltip="Share of benign prompts that look like this; NaN if uncalibrated."
                ),
                io.Boolean.Output(display_name="is_memorized", tooltip="True only for the verdict 'memorized'."),
                outputs.result(),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        positive: Any,
        latent: Any,
        draws: int,
        check_seed: int,
        calibration: str,
        alignment: bool = False,
    ) -> io.NodeOutput:
        prompt = text_behind(cls, "positive")
        denoiser = ComfyDenoiser(model, clip, like=positive)
        try:
            denoiser.require_guidance()
            shape = start_shape(model, latent)
        except NotApplicable as reason:
            return _output(not_applicable(denoiser, prompt, str(reason), seed=check_seed, draws=draws))
        calibrated, missing = calibrations.find(calibration, denoiser, draws, shape)
        guard = Guard(denoiser, calibrated)
        guard.why_uncalibrated = missing
        condition = denoiser.read(positive)
        reports = guard.judge(
            [prompt] * len(condition), condition, seed=check_seed, draws=draws, shape=shape, alignment=alignment
        )
        return _output(noted(worst_of(reports), denoiser.note))


def _output(report: MemorizationReport) -> io.NodeOutput:
    values = [math.nan if value is None else value for value in (report.score, report.p_value)]
    document = report.to_dict()
    return io.NodeOutput(document, *values, report.memorized, described(document), ui=on_node(verdict(document)))


NODE = MemorizationCheck
