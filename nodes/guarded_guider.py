"""Node: a guider for SamplerCustomAdvanced with a guard in front of it."""

import logging
from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..guard.errors import NotApplicable, UnverifiedBlocked
from . import guarding, inputs, outputs
from .calibrations import CalibratedNode
from .shown import on_node, verdict
from .tracing import text_behind
from .values import CATEGORY, start_shape

LEAST_NOISE = 0.5  # of the most: schedules begin at or a little below it


class CheckedGuider(comfy.samplers.CFGGuider):
    """CFGGuider, or without a negative conditioning BasicGuider, that knows what it was checked for.

    Args:
        model: The MODEL to sample.
        positive, negative: What to sample; without a negative one, no guidance.
        cfg: The guidance scale.
        checked: The shape (C, H, W) of latents that the check holds for; None where there was none.
        blocks: Whether what was not checked may not be sampled.
    """

    def __init__(
        self, model: Any, positive: Any, negative: Any, cfg: float, checked: tuple[int, ...] | None, blocks: bool
    ):
        super().__init__(model)
        if negative is None:
            self.inner_set_conds({"positive": positive})
        else:
            self.set_conds(positive, negative)
            self.set_cfg(cfg)
        self.checked, self.blocks = checked, blocks

    def sample(self, noise: Any, latent_image: Any, sampler: Any, sigmas: Any, *args: Any, **options: Any) -> Any:
        """Samples as ComfyUI's guiders do. Raises UnverifiedBlocked for what was not checked, where that is blocked."""
        why = self._unchecked(latent_image, sigmas)
        if why is not None and self.blocks:
            raise UnverifiedBlocked([], f"this guider was checked for something else: {why}; connect what is sampled")
        if why is not None:
            logging.warning("Cryptomnesia: the guider was checked for something else: %s", why)
        return super().sample(noise, latent_image, sampler, sigmas, *args, **options)

    def _unchecked(self, latent: Any, sigmas: torch.Tensor) -> str | None:
        """Returns in what a call differs from what was checked; None for nothing."""
        if self.checked is None or not len(sigmas):
            return None
        if torch.count_nonzero(latent):
            return "sampling starts from an image"
        shape = tuple(size for i, size in enumerate(latent.shape) if i and (size, i, latent.ndim) != (1, 2, 5))
        if shape != self.checked:
            return f"a latent of shape {shape}, not {self.checked}"
        most = float(self.model_patcher.get_model_object("model_sampling").sigma_max)
        if float(sigmas[0]) < LEAST_NOISE * most:
            return f"sampling starts part of the way, at sigma {float(sigmas[0]):.3g} of {most:.3g}"
        return None


class GuardedGuider(CalibratedNode):
    """Checks the prompt and does what the policy says before anything is sampled; then a guider as ComfyUI's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaGuardedGuider",
            display_name="Guarded Guider",
            category=CATEGORY,
            description="For SamplerCustomAdvanced, in place of CFGGuider, or of BasicGuider where nothing is connected"
            " to negative: checks the prompt before the first step, and warns, stops or mitigates where the model is "
            "about to reproduce training data.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "guider", "guard", "cfg guider", "basic guider"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.positive(),
                inputs.latent(),
                inputs.cfg(),
                inputs.policy(),
                inputs.calibration(),
                inputs.unverified(),
                inputs.fallback(),
                inputs.check_seed(),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What the image should not be. Without one: no guidance, as with BasicGuider.",
                ),
            ],
            outputs=[
                io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced; nothing where stopped."),
                outputs.report(),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt as it will be sampled."),
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
        cfg: float,
        policy: str,
        calibration: str,
        unverified: str,
        fallback: str,
        check_seed: int,
        negative: Any = None,
    ) -> io.NodeOutput:
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
        )
        facts = {} if found.stopped is None else {"stopped": found.stopped}
        shown = on_node(verdict(found.report, **facts))
        if found.stopped is not None:
            return io.NodeOutput(ExecutionBlocker(None), found.report, found.positive, found.text, ui=shown)
        blocks = guarding.blocks_unverified(policy, unverified)
        checked = _checked(model, latent, found)
        guider = CheckedGuider(model, found.positive, negative, cfg, checked, blocks)
        return io.NodeOutput(guider, found.report, found.positive, found.text, ui=shown)


def _checked(model: Any, latent: Any, found: guarding.Guarded) -> tuple[int, ...] | None:
    """Returns the shape that was checked; None where nothing was, which the report says already."""
    if found.report is None or found.report["verdict"] == "not applicable":
        return None
    try:
        return start_shape(model, latent)
    except NotApplicable:
        return None


NODE = GuardedGuider
