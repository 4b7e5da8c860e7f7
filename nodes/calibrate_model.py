"""Node: what benign prompts score on a model, so that checks can give verdicts."""

from pathlib import Path
from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.calibration import Calibration
from ..guard.calibration_run import CalibrationRun
from ..guard.errors import CalibrationError, InputError, NotApplicable
from ..guard.prompts import benign
from . import calibrations, folder, inputs, outputs
from .shown import on_node, state
from .values import CATEGORY, start_shape


class CalibrateModel(io.ComfyNode):
    """Can be cancelled; the next run goes on where it was."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaCalibrateModel",
            display_name="Calibrate Model",
            category=CATEGORY,
            description="Run once per model, image size and set of LoRAs: measures a few hundred benign prompts, so "
            "that verdicts come with a promised false-alarm rate. Cancel it any time: it goes on where it was. A "
            "file that is there already is not made again.",
            search_aliases=["cryptomnesia", "calibration"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.latent(),
                io.String.Input("name", default="my-model", tooltip="The file's name in models/cryptomnesia."),
                inputs.draws(),
                io.Float.Input(
                    "alpha",
                    default=0.01,
                    min=0.0001,
                    max=0.5,
                    step=0.0001,
                    tooltip="The false-alarm rate to promise; .01 needs 99 prompts or more.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="Benign prompts like your own, one per line, at least 100; empty: a list of 486 that "
                    "comes with the pack.",
                ),
                inputs.check_seed(),
                io.Boolean.Input(
                    "by_words",
                    default=False,
                    optional=True,
                    tooltip="Also learn what score a prompt's words lead to expect, and take a part of it off: flags "
                    "more that is memorized in part. Not for distilled models.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="calibration", tooltip="The file's name."),
                outputs.result(),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        latent: Any,
        name: str,
        draws: int,
        alpha: float,
        prompts: str,
        check_seed: int,
        by_words: bool = False,
    ) -> io.NodeOutput:
        path = folder.new_file(name, calibrations.ENDING)
        denoiser = ComfyDenoiser(model, clip)
        denoiser.require_guidance()
        if denoiser.unreadable:
            raise NotApplicable(calibrations.unreadable(denoiser))
        _require_same_model(path, denoiser)
        texts = benign(prompts.splitlines())
        run = CalibrationRun(
            denoiser,
            texts,
            draws=draws,
            seed=check_seed,
            alpha=alpha,
            partial=path.with_name(path.name + ".partial"),
            latent_shape=start_shape(model, latent),
            by_words=by_words,
        )
        made = run.finished(path)
        if made is None:
            bar = comfy.utils.ProgressBar(run.total)
            bar.update_absolute(run.done)
            for done in run.steps():
                bar.update_absolute(done)
            made = run.finish(path)
        elif made.alpha != Calibration.load(path).alpha:
            made.save(path)
        text = f"{made.n} benign prompts; scores above {made.threshold:.2f} mean memorized, false-alarm rate {alpha:g}"
        shown = on_node(state("calibrated", detail=f"on {made.n} prompts"), text)
        return io.NodeOutput(path.name, text, ui=shown)


def _require_same_model(path: Path, denoiser: ComfyDenoiser) -> None:
    """Raises InputError if the file is another model's: a default name is soon used twice."""
    if not path.exists():
        return
    try:
        other = Calibration.load(path).fingerprint != denoiser.fingerprint
    except CalibrationError:  # no model's
        return
    if other:
        raise InputError(f"{path.name} belongs to another model, or to other LoRAs: give this calibration another name")


NODE = CalibrateModel
