"""A pipeline's own call, with one late latent of its trajectory kept; the image is that of an unwatched call."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.network_calls import read_call, watched
from ..adapters.pipeline_call import original_call, starts_from_image
from ..adapters.sampling import TextToImage
from ..condition import Condition, is_empty, own_copy, without_extras
from ..denoiser import Denoiser, Prediction
from ..errors import NotApplicable
from ..levels import NoiseLevel
from ..progress import Progress
from ..protocols import PipelineDenoiser, pipeline_of

STEPS = 50
FROM_THE_END = 3  # of 50 steps: at the very last, what the autoencoder left in training latents drowns the rest


def late_level(denoiser: Denoiser) -> NoiseLevel:
    """Returns the level that maps are taken at, as near as a sampler comes to it; t = 41 of 1,000 for SD."""
    steps = STEPS if denoiser.levels.alphas_cumprod is None else min(STEPS, len(denoiser.levels.alphas_cumprod))
    return denoiser.levels.sampling(steps)[-min(FROM_THE_END, steps)]


@dataclass(frozen=True)
class Late:
    """A late latent of one image's trajectory.

    Attributes:
        x: The noisy latent, (1, C, h, w).
        level: The latent's noise level.
        condition: The prompt's condition, one row.
        difference: noise(x, prompt) - noise(x, empty), where the sampler asked for both; saves two rows.
        clean: What it becomes, (1, C, h, w), as the sampler finished it or as the network sees it coming; None where
            nobody knows.
    """

    x: Tensor
    level: NoiseLevel
    condition: Condition
    difference: Tensor | None = None
    clean: Tensor | None = None

    @staticmethod
    def of_finished(denoiser: Denoiser, latent: Tensor, condition: Condition, seed: int = 0) -> "Late":
        """Returns what the trajectory may have been shortly before a finished latent (1, C, h, w), with private noise.

        For hosts that hand out finished latents only; on the built-in model about as good as the trajectory's own.
        """
        level = late_level(denoiser)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        clean = latent.detach().float().cpu()
        x = level.alpha.view(-1, 1, 1, 1) * clean + level.sigma.view(-1, 1, 1, 1) * noise
        return Late(x, level, condition, clean=clean)


class Sampling:
    """One image of a pipeline, as `TextToImage` makes it.

    Args:
        denoiser: The denoiser of a pipeline.
        seed: The image's seed.
        steps: Sampling steps.
        guidance: Guidance scale, by default the pipeline's own.
        shape: The latent's shape, (C, h, w).

    Raises:
        InputError: There is no pipeline, or it can be told no guidance.
        NotApplicable: The pipeline starts from an image.
    """

    def __init__(
        self, denoiser: Denoiser, *, seed: int, steps: int, guidance: float | None, shape: tuple[int, int, int]
    ):
        host = pipeline_of(denoiser, instead="give one, or call locate_late with a latent of your own")
        if starts_from_image(original_call(host.pipe)):
            raise NotApplicable("this pipeline starts from an image, not from pure noise: give a text-to-image one")
        height, width = denoiser.pixels(shape) or (None, None)
        self.denoiser, self.host, self.seed = denoiser, host, seed
        self.maker = TextToImage(host.pipe, steps=steps, guidance=guidance, height=height, width=width)
        self.guidance = self.maker.guidance

    def run(self, prompt: str, progress: Progress | None = None, *, seed: int | None = None) -> tuple[Tensor, Late]:
        """Samples the image, or one of another seed.

        Returns:
            The image (3, H, W) float32 in [0, 1], and the late latent.

        Raises:
            InputError, NonFiniteError, OutOfMemory: As `TextToImage.images` says.
            NotApplicable: The pipeline's calls of its network cannot be read.
        """
        watch = _Watch(self.denoiser, self.host)
        with watched(self.host, watch.see):
            made = self.maker.images([prompt], [self.seed if seed is None else seed], progress=progress)
        return torch.from_numpy(made[0]).permute(2, 0, 1).float(), watch.late()


class _Watch:
    """Keeps the call of the network that comes closest to the wanted level."""

    def __init__(self, denoiser: Denoiser, host: PipelineDenoiser):
        self.denoiser, self.host = denoiser, host
        self._wanted = _log_ratio(late_level(denoiser))
        self._nearest, self._kept = float("inf"), None
        self._problem: NotApplicable | None = None

    def see(self, arguments: dict[str, Any], output: Any) -> None:
        """Looks at one call of the network and its answer, and keeps it if it is the nearest so far."""
        try:
            x, time, condition, raw = read_call(self.host, arguments, output)
        except NotApplicable as problem:  # the image is made all the same
            self._problem = problem
            return
        level = self.denoiser.level(time.float().flatten()[:1].cpu())
        distance = abs(_log_ratio(level) - self._wanted)
        # the first call at a level is about the prompt; some pipelines ask about the negative one in a second call
        if level.sigma.item() > 0 and distance < self._nearest:
            with torch.inference_mode(False):
                self._nearest, self._kept = distance, (x.detach().clone(), level, own_copy(condition), raw.clone())

    def late(self) -> Late:
        """Returns what was kept. Raises NotApplicable if nothing was."""
        if self._kept is None:
            raise self._problem or NotApplicable("the sampler never asked the network at a level with noise")
        x, level, condition, raw = self._kept
        if len(x) > 2:
            raise NotApplicable(f"the network is asked with {len(x)} rows for one image: layout unknown")
        kind, levels = self.denoiser.prediction_type, level.expand(len(x)).to(x.device)
        answer = Prediction.from_output(kind, raw, x, levels)
        clean = answer.x0[-1:].detach().float()
        if len(x) == 1:  # without guidance
            return Late(x, level, without_extras(condition, self.denoiser.empty), clean=clean)
        difference = None
        if is_empty(condition[[0]], self.denoiser.empty, condition[[1]]):
            difference = answer.noise[1:] - answer.noise[:1]
        return Late(x[1:], level, without_extras(condition[[1]], self.denoiser.empty), difference, clean)


def _log_ratio(level: NoiseLevel) -> float:
    """log of sigma / alpha, in which levels of all families compare."""
    return (level.sigma.double().clamp_min(1e-9).log() - level.alpha.double().clamp_min(1e-9).log()).item()
