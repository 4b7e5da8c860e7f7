"""Node: the seed, of several, from whose noise the prompt reproduces the least."""

from typing import Any

import torch
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.combination import Combination
from ..guard.errors import NotApplicable
from ..guard.mitigation.initial_noise import select_noise
from ..guard.signals.rings import RINGS
from . import calibrations, inputs
from .calibrations import CalibratedNode
from .inputs import MOST
from .shown import on_node, state
from .values import CATEGORY, start_shape

NORM = Combination([1.0] * RINGS)  # without a calibration: the log of the guidance's squared norm


class SeedNoise:
    """ComfyUI's NOISE of a seed, the same that KSampler draws for it."""

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, input_latent: dict[str, Any]) -> torch.Tensor:
        """Returns the noise for a latent, of the latent's shape, as ComfyUI's samplers ask for it."""
        import comfy.sample

        return comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))


class GuardedNoise(CalibratedNode):
    """Searches a seed, as `guard.mitigation.initial_noise` does; the words stay."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaGuardedNoise",
            display_name="Guarded Noise",
            category=CATEGORY,
            description="Tries several seeds before sampling and gives the one from which the prompt reproduces "
            "the least. Helps where memorization hangs on the seed; where it hangs on the words, rewrite the prompt.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "seed search", "noise", "random noise"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.positive(),
                inputs.latent(),
                io.Int.Input(
                    "noise_seed",
                    default=0,
                    min=0,
                    max=MOST - 1,
                    control_after_generate=True,
                    tooltip="The first seed; the next ones are tried, too.",
                ),
                io.Int.Input("candidates", default=8, min=1, max=256, tooltip="How many seeds to try, one row each."),
                inputs.calibration(),
            ],
            outputs=[
                io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced."),
                io.Int.Output(
                    display_name="seed", tooltip="For KSampler: right-click it, convert its seed to an input."
                ),
                io.String.Output(display_name="text", tooltip="What was tried, in plain words."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        positive: Any,
        latent: Any,
        noise_seed: int,
        candidates: int,
        calibration: str,
    ) -> io.NodeOutput:
        denoiser = ComfyDenoiser(model, clip, like=positive)
        try:
            denoiser.require_guidance()
            shape = start_shape(model, latent)
        except NotApplicable as reason:
            shown = on_node(state("not applicable", reason=str(reason)))
            return io.NodeOutput(SeedNoise(noise_seed), noise_seed, f"not applicable: {reason}", ui=shown)
        calibrated, missing = calibrations.find(calibration, denoiser, None, shape)
        seeds = [(noise_seed + i) % MOST for i in range(candidates)]
        batch = len(latent["samples"])
        noises = torch.cat([_noise(shape, batch, latent.get("batch_index"), seed) for seed in seeds])
        form, level = NORM, None
        if calibrated is not None:
            form, level = calibrated.combination, calibrated.level(denoiser)
        scores = select_noise(denoiser, form, denoiser.read(positive)[[0]], noises=noises, level=level).scores
        # a seed is as bad as the worst image of its batch
        worst = scores.view(candidates, batch).amax(1)
        best = int(worst.argmin())
        text = (
            f"seed {seeds[best]}: score {worst[best]:.3f}, of {worst.min():.3f} to {worst.max():.3f} among {candidates}"
        )
        lines = [line for line in (text, missing, denoiser.note) if line]
        shown = on_node(state("seed", detail=f"{seeds[best]} of {candidates}", score=float(worst[best])))
        return io.NodeOutput(SeedNoise(seeds[best]), seeds[best], "\n".join(lines), ui=shown)


def _noise(shape: tuple[int, int, int], batch: int, inds: Any, seed: int) -> torch.Tensor:
    """Returns what ComfyUI's samplers start from, (batch, C, H, W), and puts the global generator back."""
    import comfy.sample

    with torch.random.fork_rng(devices=[]):
        return comfy.sample.prepare_noise(torch.zeros(batch, *shape), seed, inds)


NODE = GuardedNoise
