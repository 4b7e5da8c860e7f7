"""Node: KSampler with a guard in front of it."""

from importlib import import_module
from typing import Any

import comfy.samplers
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from . import guarding, inputs, outputs
from .calibrations import CalibratedNode
from .shown import on_node, verdict
from .tracing import text_behind
from .values import CATEGORY


class GuardedKSampler(CalibratedNode):
    """Checks the prompt, does what the policy says, and samples as KSampler does: by ComfyUI's own function."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaGuardedKSampler",
            display_name="Guarded KSampler",
            category=CATEGORY,
            description="In place of KSampler: checks the prompt before the first step, and warns, stops or mitigates "
            "where the model is about to reproduce training data. What is not flagged comes out bit for bit as from "
            "KSampler.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "sampler", "ksampler", "guard", "safe sampler"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.positive(),
                io.Conditioning.Input("negative", tooltip="What the image should not be, as in KSampler."),
                inputs.latent(),
                inputs.noise_seed("The seed of the image's noise."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="The number of steps, as in KSampler."),
                inputs.cfg(),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="The method, as in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="The schedule, as in KSampler."
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="As in KSampler. Below 1 sampling starts part of the way: a check says nothing there.",
                ),
                inputs.policy(),
                inputs.calibration(),
                inputs.unverified(),
                inputs.fallback(),
                inputs.check_seed(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The denoised latent; nothing where it was stopped."),
                outputs.report(),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt as it was sampled."),
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
        negative: Any,
        latent: Any,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        policy: str,
        calibration: str,
        unverified: str,
        fallback: str,
        check_seed: int,
    ) -> io.NodeOutput:
        partial = None if denoise == 1 else f"sampling starts part of the way: denoise is {denoise:g}"
        found = guarding.guarded(
            model,
            clip,
            positive,
            latent,
            text_behind(cls, "positive"),
            policy=policy,
            unverified=unverified,
            fallback=fallback,
            calibration=calibration,
            seed=check_seed,
            partial=partial,
        )
        facts = {} if found.stopped is None else {"stopped": found.stopped}
        shown = on_node(verdict(found.report, **facts))
        if found.stopped is not None:
            # without a message of its own a blocker skips what hangs on it, and nothing looks like a failure
            return io.NodeOutput(ExecutionBlocker(None), found.report, found.positive, found.text, ui=shown)
        sample = import_module("nodes").common_ksampler  # of ComfyUI's own module of that name
        (sampled,) = sample(
            model, noise_seed, steps, cfg, sampler_name, scheduler, found.positive, negative, latent, denoise=denoise
        )
        return io.NodeOutput(sampled, found.report, found.positive, found.text, ui=shown)


NODE = GuardedKSampler
