"""Samples one prompt as it was and as it was mended, with the same seeds, on any supported text-to-image pipeline."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..adapters.guidance import guidance_arguments, own_guidance
from ..errors import InputError, NonFiniteError
from ..memory import memory_needed
from ..protocols import pipeline_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ..denoiser import Denoiser
    from ..mitigation.result import Mended

LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class Side:
    """Images (S, H, W, 3) uint8, what each started from, in words, and whether those noises are independent."""

    images: "NDArray[np.uint8]"
    starts: list[str]
    independent: bool = True


class Sampler:
    """Makes the images of the page, one at a time, from private generators; the command owns the pipeline.

    Args:
        denoiser: Of a pipeline.
        shape: (C, H, W) of the latent.
        count: Images per prompt and side.
        seed: Of the first image; the others follow.
        steps, guidance: By default the pipeline's own.

    Raises:
        InputError: The pipeline does not start from noise, or cannot be told a guidance, or that is no number.
    """

    def __init__(
        self,
        denoiser: "Denoiser",
        shape: tuple[int, int, int],
        *,
        count: int,
        seed: int,
        steps: int | None = None,
        guidance: float | None = None,
    ):
        self.denoiser, self.pipe, self.seed = denoiser, pipeline_of(denoiser).pipe, seed
        self._known = inspect.signature(type(self.pipe).__call__).parameters
        name = type(self.pipe).__name__
        if "strength" in self._known:
            raise InputError(f"{name} starts from an image, so nothing can be sampled: leave out --out")
        if guidance is not None and not math.isfinite(guidance):
            raise InputError(f"--guidance is a number, such as 7.5, not {guidance}")
        self.steps: int = steps or self._known["num_inference_steps"].default
        self.guidance: float = own_guidance(self.pipe, self._known) if guidance is None else guidance
        self.seeds = [(seed + i) % (LARGEST_SEED + 1) for i in range(count)]
        factor = self.pipe.vae_scale_factor
        self.height, self.width = shape[1] * factor, shape[2] * factor
        self.pipe.set_progress_bar_config(disable=True)

    @property
    def settings(self) -> str:
        """How images are made, in one line."""
        last = f" to {self.seeds[-1]}" if len(self.seeds) > 1 else ""
        return (
            f"{type(self.pipe.scheduler).__name__}, {self.steps} steps, guidance {self.guidance:g}, "
            f"{'seeds' if last else 'seed'} {self.seeds[0]}{last}, {self.width}x{self.height} pixels"
        )

    def sides(self, mended: "Mended") -> int:
        """How many sides there are to sample: two, or one where there is nothing to sample with."""
        return 1 if self._rewording_failed(mended) else 2

    def before(self, prompt: str, advance: Callable[[int], None]) -> Side:
        """The prompt as it was.

        Args:
            prompt: Its text.
            advance: Called with the number of steps done since the last call.

        Raises:
            InputError: The pipeline refuses the settings.
            NonFiniteError, OutOfMemory: As they say.
        """
        calls = [self._common(seed) | {"prompt": prompt} for seed in self.seeds]
        return Side(self._make(calls, advance), self._seed_names())

    def after(self, prompt: str, mended: "Mended", advance: Callable[[int], None]) -> Side | None:
        """What the prompt was mended to, whether or not it held; None for a rewriting that was not found."""
        if self._rewording_failed(mended):
            return None
        images = self._make(list(self._mended_calls(prompt, mended)), advance)
        if mended.noise is None:
            return Side(images, self._seed_names())
        return Side(images, ["chosen noise", *["close to it"] * (len(images) - 1)], independent=False)

    def _seed_names(self) -> list[str]:
        return [f"seed {seed}" for seed in self.seeds]

    def _rewording_failed(self, mended: "Mended") -> bool:
        return mended.condition is None and mended.noise is None

    def _common(self, seed: int) -> dict[str, Any]:
        """Arguments of one call, all but what to make."""
        import torch

        arguments: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.steps,
            "generator": torch.Generator().manual_seed(seed),
            "output_type": "np",
        }
        arguments |= guidance_arguments(self.pipe, self._known, self.guidance)
        if "use_resolution_binning" in self._known:
            arguments["use_resolution_binning"] = False  # the size that was checked, and no other
        return arguments

    def _mended_calls(self, prompt: str, mended: "Mended") -> Iterator[dict[str, Any]]:
        from ..attached.request import Request

        about = mended.mitigation
        noises = None if mended.noise is None else self._noises(mended.noise)
        for i, seed in enumerate(self.seeds):
            arguments = self._common(seed) | {"prompt": prompt}
            if noises is not None:
                yield arguments | {"latents": noises[i : i + 1]}
            elif about.method == "embed":
                request = Request(arguments, [prompt], [0])
                yield request.with_conditions(mended.condition, self.denoiser.empty)  # type: ignore[arg-type]
            else:
                yield arguments | {"prompt": about.rewritten}

    def _noises(self, chosen: "Tensor") -> "Tensor":
        """The chosen noise (1, C, H, W) and others close to it, as the pipeline takes them."""
        import torch

        from ..mitigation.initial_noise import neighbours

        near = neighbours(chosen, len(self.seeds) - 1, self.seed)
        noises = torch.cat([chosen, near]).to(self.denoiser.device, self.denoiser.dtype)
        if self.denoiser.family != "flux":
            return noises
        rows, channels, height, width = noises.shape
        patches = noises.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(rows, height * width // 4, channels * 4)

    def _make(self, calls: list[dict[str, Any]], advance: Callable[[int], None]) -> "NDArray[np.uint8]":
        import numpy as np

        return np.concatenate([self._one(call, advance) for call in calls])

    def _one(self, arguments: dict[str, Any], advance: Callable[[int], None]) -> "NDArray[np.uint8]":
        import numpy as np

        done = 0

        def step_done(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            if done < self.steps:  # some schedulers take more steps than asked
                done += 1
                advance(1)
            return {}

        if "callback_on_step_end" in self._known:
            arguments["callback_on_step_end"] = step_done
        try:
            with memory_needed("the device has no memory for one image: give a smaller --height and --width"):
                made = self.pipe(**arguments).images
        except ValueError as error:
            raise InputError(f"{type(self.pipe).__name__} refuses to sample: {error}") from error
        advance(self.steps - done)
        if not np.isfinite(made).all():
            raise NonFiniteError("the model made an image with NaN or infinity: use another dtype")
        return (made * 255).round().astype(np.uint8)
