"""Samples one prompt before and after mitigation, with the same seeds, on any supported text-to-image pipeline."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..adapters.sampling import TextToImage, as_bytes
from ..progress import Progress
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
    """Makes the images of the page, one at a time, from private generators.

    Args:
        denoiser: The denoiser of a pipeline.
        shape: The shape of the latent, (C, H, W).
        count: The number of images per prompt and side.
        seed: The seed of the first image; those of the others follow.
        steps, guidance: The steps and the guidance scale; None for the pipeline's own.

    Raises:
        InputError: The pipeline does not start from noise, or cannot be told a guidance.
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
        self.denoiser, self.seed = denoiser, seed
        self.height, self.width = denoiser.pixels(shape) or (None, None)
        self.host = pipeline_of(denoiser)
        self.maker = TextToImage(self.host.pipe, steps=steps, guidance=guidance, height=self.height, width=self.width)
        self.steps, self.guidance = self.maker.steps or 1, self.maker.guidance
        self.seeds = [(seed + i) % (LARGEST_SEED + 1) for i in range(count)]

    @property
    def settings(self) -> str:
        """How images are made, in one line for people."""
        last = f" to {self.seeds[-1]}" if len(self.seeds) > 1 else ""
        return (
            f"{self.maker.scheduler}, {self.steps} steps, guidance {self.guidance:g}, "
            f"{'seeds' if last else 'seed'} {self.seeds[0]}{last}, {self.width}x{self.height} pixels"
        )

    def sides(self, mitigated: "Mended") -> int:
        """Returns how many sides there are to sample: two, or one where there is nothing to sample with."""
        return 1 if mitigated.condition is mitigated.noise is None else 2

    def before(self, prompt: str, progress: Progress | None = None) -> Side:
        """Returns images of the prompt as it was.

        Args:
            prompt: The prompt's text.
            progress: progress(done, total), in steps of this side's images.

        Raises:
            InputError, NonFiniteError, OutOfMemory: As `TextToImage.images` says.
        """
        return Side(self._made(prompt, progress), self._seed_names())

    def after(self, prompt: str, mitigated: "Mended", progress: Progress | None = None) -> Side | None:
        """Returns images of what the prompt was changed to, held or not; None where no rewriting was found."""
        about = mitigated.mitigation
        if mitigated.noise is not None:
            images = self._made(prompt, progress, latents=self._noises(mitigated.noise))
            return Side(images, ["chosen noise", *["close to it"] * (len(images) - 1)], independent=False)
        if mitigated.condition is None:
            return None
        if about.method in ("embed", "attenuate"):
            moved, empty = mitigated.condition, self.denoiser.empty
            images = self._made(
                prompt, progress, embeddings=lambda n: self.host.as_arguments(moved[[0] * n], empty[[0] * n])
            )
        else:
            images = self._made(about.rewritten or "", progress)
        return Side(images, self._seed_names())

    def images(self, prompt: str, per_call: int, progress: Progress | None = None) -> "NDArray[np.uint8]":
        """Returns images of a prompt (S, H, W, 3), so many per call of the pipeline; errors as in `before`."""
        return self._made(prompt, progress, per_call)

    def _seed_names(self) -> list[str]:
        return [f"seed {seed}" for seed in self.seeds]

    def _made(self, prompt: str, progress: Progress | None, per_call: int = 1, **start: Any) -> "NDArray[np.uint8]":
        prompts = [prompt] * len(self.seeds)
        return as_bytes(self.maker.images(prompts, self.seeds, per_call=per_call, progress=progress, **start))

    def _noises(self, chosen: "Tensor") -> "Tensor":
        """Returns the chosen noise (1, C, H, W) and others close to it, as the pipeline takes them."""
        import torch

        from ..mitigation.initial_noise import neighbours

        near = neighbours(chosen, len(self.seeds) - 1, self.seed)
        return self.host.packed(torch.cat([chosen, near]).to(self.denoiser.device, self.denoiser.dtype))
