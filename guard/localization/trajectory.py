"""A pipeline's own call, with one late latent of its trajectory kept; the image is that of an unwatched call."""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.guidance import guidance_arguments, own_guidance
from ..attached.attach import original_call
from ..attached.first_step import is_empty, own_copy, without_extras
from ..denoiser import Condition, Denoiser, Prediction
from ..errors import InputError, NonFiniteError, NotApplicable
from ..levels import NoiseLevel
from ..memory import memory_needed
from ..own_calls import own_calls
from ..protocols import PipelineDenoiser, pipeline_of

STEPS = 50
NO_MEMORY = "the device has no memory for one image: give a smaller height and width"
FROM_THE_END = 3  # of 50 steps: at the very last, what the autoencoder left in training latents drowns the rest


def late_level(denoiser: Denoiser) -> NoiseLevel:
    """The level that maps are taken at, as near as a sampler comes to it: t = 41 of 1,000 for Stable Diffusion."""
    steps = STEPS if denoiser.levels.alphas_cumprod is None else min(STEPS, len(denoiser.levels.alphas_cumprod))
    return denoiser.levels.sampling(steps)[-min(FROM_THE_END, steps)]


@dataclass(frozen=True)
class Late:
    """A late latent of one image's trajectory.

    Attributes:
        x: Noisy latent, (1, C, h, w).
        level: Its noise level.
        condition: The prompt's, one row.
        difference: noise(x, prompt) - noise(x, empty), where the sampler asked for both; saves two rows.
    """

    x: Tensor
    level: NoiseLevel
    condition: Condition
    difference: Tensor | None = None

    @staticmethod
    def of_finished(denoiser: Denoiser, latent: Tensor, condition: Condition, seed: int = 0) -> "Late":
        """What the trajectory may have been shortly before a finished latent (1, C, h, w), with private noise.

        For hosts that hand out finished latents only; on the built-in model about as good as the trajectory's own.
        """
        level = late_level(denoiser)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        clean = latent.detach().float().cpu()
        return Late(level.alpha.view(-1, 1, 1, 1) * clean + level.sigma.view(-1, 1, 1, 1) * noise, level, condition)


class Sampling:
    """One image of a pipeline, made by the pipeline's own call from a private generator.

    Its scheduler is replaced by a copy for the time of the call, so that the pipeline is as before afterwards.

    Args:
        denoiser: Of a pipeline.
        seed: Of the image.
        steps: Sampling steps.
        guidance: Guidance scale, by default the pipeline's own.
        shape: (C, h, w) of the latent.

    Raises:
        InputError: There is no pipeline.
        NotApplicable: The pipeline starts from an image.
    """

    def __init__(
        self, denoiser: Denoiser, *, seed: int, steps: int, guidance: float | None, shape: tuple[int, int, int]
    ):
        host = pipeline_of(denoiser, instead="give one, or call locate_late with a latent of your own")
        pipe = host.pipe
        self.denoiser, self.host, self.pipe, self.call = denoiser, host, pipe, original_call(pipe)
        known = inspect.signature(self.call).parameters
        if "strength" in known:
            raise NotApplicable("this pipeline starts from an image, not from pure noise: give a text-to-image one")
        self.steps, self.guidance = steps, own_guidance(pipe, known) if guidance is None else guidance
        factor = pipe.vae_scale_factor
        self._arguments: dict[str, Any] = {
            "height": shape[1] * factor,
            "width": shape[2] * factor,
            "num_inference_steps": steps,
            "generator": torch.Generator().manual_seed(seed),
            "output_type": "np",
            **guidance_arguments(pipe, known, self.guidance),
        }
        if "use_resolution_binning" in known:
            self._arguments["use_resolution_binning"] = False  # the size that was asked for, and no other

    def run(self, prompt: str, advance: Callable[[int], None] | None = None) -> tuple[Tensor, Late]:
        """The image (3, H, W) float32 in [0, 1], and the late latent.

        Raises:
            InputError: The pipeline refuses the settings.
            NotApplicable: The pipeline's calls of its network cannot be read.
            NonFiniteError, OutOfMemory: As they say.
        """
        watch = _Watch(self.denoiser, self.host, advance)
        scheduler = self.pipe.scheduler
        try:
            self.pipe.scheduler = copy.deepcopy(scheduler)
            with own_calls(), memory_needed(NO_MEMORY), watch.watching():
                made = self.call(self.pipe, prompt, **self._arguments).images
        except ValueError as error:
            raise InputError(f"{type(self.pipe).__name__} refuses to sample: {error}") from error
        finally:
            self.pipe.scheduler = scheduler
        image = torch.from_numpy(made[0]).permute(2, 0, 1).float()
        if not torch.isfinite(image).all():
            raise NonFiniteError("the model made an image with NaN or infinity: use another dtype")
        return image, watch.late()


class _Watch:
    """Keeps the call of the network that comes closest to the wanted level."""

    def __init__(self, denoiser: Denoiser, host: PipelineDenoiser, advance: Callable[[int], None] | None):
        self.denoiser, self.host, self.advance = denoiser, host, advance
        self._wanted = _log_ratio(late_level(denoiser))
        self._nearest, self._kept = float("inf"), None
        self._problem: NotApplicable | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, calls that this thread makes of the network are seen."""
        network, own, text = self.host.network, threading.get_ident(), ExitStack()
        forward = inspect.signature(type(getattr(network, "_orig_mod", network)).forward)

        def seen(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if threading.get_ident() == own:
                text.close()  # prompts are encoded before the first call
                self._see(forward.bind(module, *args, **kwargs).arguments, output)

        handle = network.register_forward_hook(seen, with_kwargs=True)
        text.enter_context(self.host.text_lock)
        try:
            yield
        finally:
            handle.remove()
            text.close()

    def _see(self, arguments: dict[str, Any], output: Any) -> None:
        if self.advance is not None:
            self.advance(1)
        try:
            x, time, condition, raw = self.host.read_call(arguments, output)
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
        """What was kept. Raises NotApplicable if nothing was."""
        if self._kept is None:
            raise self._problem or NotApplicable("the sampler never asked the network at a level with noise")
        x, level, condition, raw = self._kept
        if len(x) == 1:  # without guidance
            return Late(x, level, without_extras(condition, self.denoiser.empty))
        if len(x) != 2:
            raise NotApplicable(f"the network is asked with {len(x)} rows for one image: layout unknown")
        difference = None
        if is_empty(condition[[0]], self.denoiser.empty, condition[[1]]):
            noise = Prediction.from_output(self.denoiser.prediction_type, raw, x, level.expand(2).to(x.device)).noise
            difference = noise[1:] - noise[:1]
        return Late(x[1:], level, without_extras(condition[[1]], self.denoiser.empty), difference)


def _log_ratio(level: NoiseLevel) -> float:
    """log of sigma / alpha, in which levels of all families compare."""
    return (level.sigma.double().clamp_min(1e-9).log() - level.alpha.double().clamp_min(1e-9).log()).item()
