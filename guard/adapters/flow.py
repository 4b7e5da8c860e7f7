"""Rectified flow: what pipelines of transformers on flow times in [0, 1] share."""

import math
from typing import Any

from ..denoiser import Levels, PredictionType
from ..errors import InputError
from .diffusers import PipelineDenoiser

TIMESTEPS = 1000  # flow times are fed, or rounded, as thousandths


class FlowDenoiser(PipelineDenoiser):
    """Rectified flow: x = (1 - s) x0 + s noise, the network's output is noise - x0."""

    max_shift = 1.15

    @property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        return "flow"

    def _make_levels(self) -> Levels:
        dynamic = self.pipe.scheduler.config.get("use_dynamic_shifting")
        return Levels(None, shift=self._shift(self._patches if dynamic else 0))

    def _shift(self, patches: int) -> float:
        """How the scheduler shifts the times of latents of so many patches."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return float(config.get("shift") or config.get("flow_shift") or 1.0)
        mu = self._mu(patches)
        return mu if config.get("time_shift_type", "exponential") == "linear" else math.exp(mu)

    @property
    def _patches(self) -> int:
        """The number of patches that the shift grows with; here, at the model's own size."""
        patch = self._factor // self.pipe.vae_scale_factor
        return (self._sample_size[0] // patch) * (self._sample_size[1] // patch)

    def _mu(self, patches: int) -> float:
        """What the pipeline makes of the number of patches: the shift, or its logarithm."""
        config = self.pipe.scheduler.config
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, top = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        return base + (top - base) * (patches - low) / (high - low)

    def _guidance_embeds(self, embedding: Any) -> bool:
        """Whether the configuration says that the guidance scale is an input. Raises InputError where weights disagree.

        Args:
            embedding: The network's embedding of times, which holds a `guidance_embedder` if so.
        """
        says = bool(self.network.config.guidance_embeds)
        if embedding is not None and (getattr(embedding, "guidance_embedder", None) is not None) != says:
            raise InputError(
                "the network's configuration (guidance_embeds) and its weights contradict each other on whether it is "
                "told its guidance scale: load it with the configuration that belongs to it"
            )
        return says

    @property
    def levels(self) -> Levels:  # type: ignore[override]
        if self.pipe.scheduler.config.get("use_dynamic_shifting"):
            return self._make_levels()  # depends on the network's size too, and costs nothing
        return super().levels
