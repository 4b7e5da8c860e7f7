"""Images of texts: the one place that calls a pipeline to make them.

The pipeline is as before afterwards, however the call ends: its scheduler, its progress bar, what is kept off the
device. Every image has a generator of its own, so that nothing is drawn from global ones. No attached guard steps in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CryptomnesiaError, InputError, NonFiniteError, OutOfMemory, require
from ..memory import memory_needed
from ..own_calls import own_calls
from ..progress import Progress
from .about import scheduler_of
from .guidance import guidance_arguments, own_guidance
from .pipeline_call import attention_as_found, needs_image, offload_again, original_call, parameters, starts_from_image
from .request import embedded


class TextToImage:
    """A pipeline's own call, with the same settings for all images.

    Args:
        pipe: A diffusers text-to-image pipeline.
        steps: Sampling steps, by default the pipeline's own.
        guidance: The scale, 1 or less for none, by default the pipeline's own; see `adapters.guidance`.
        negative: What to stay away from, or nothing.
        height, width: The images' size in pixels, by default the pipeline's own.
        scheduler: A scheduler to use in place of the pipeline's own.

    Raises:
        InputError: The pipeline is given an image, or can be told no guidance or no negative prompt.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        height: int | None = None,
        width: int | None = None,
        scheduler: Any = None,
    ):
        self.pipe, self._call = pipe, original_call(pipe)
        self._known = parameters(self._call)
        if starts_from_image(self._call):
            raise InputError(f"{type(pipe).__name__} starts from an image: give a text-to-image pipeline")
        if needs_image(pipe):
            raise InputError(
                f"{type(pipe).__name__} is given an image beside the prompt: make the pipeline without ControlNet or "
                "adapter of its parts, by from_pipe(pipe) of that class"
            )
        self._guidance, self._negative, self._scheduler = guidance, negative, scheduler
        self._settings = {"num_inference_steps": steps, "height": height, "width": width}
        self._fits: int | None = None  # images per call, where more were too many
        self.arguments(1)

    @property
    def steps(self) -> int | None:
        """The number of sampling steps; None where the pipeline alone knows how many."""
        name = "num_inference_steps"
        given = self._settings[name]
        return self._known[name].default if given is None and name in self._known else given

    @property
    def guidance(self) -> float:
        """The guidance scale. Raises InputError if the pipeline knows none."""
        return own_guidance(self.pipe, self._known) if self._guidance is None else self._guidance

    @property
    def scheduler(self) -> str:
        """The name of the scheduler's class."""
        return scheduler_of(self.pipe) if self._scheduler is None else type(self._scheduler).__name__

    def arguments(self, count: int) -> dict[str, Any]:
        """Returns what each call of `count` images is given, by the pipeline's names, beside texts and generators."""
        given: dict[str, Any] = {name: value for name, value in self._settings.items() if value is not None}
        if "use_resolution_binning" in self._known and given.keys() & {"height", "width"}:
            given["use_resolution_binning"] = False  # the size that was asked for, and no other
        if "intermediate_timesteps" in self._known and given.get("num_inference_steps", 2) != 2:
            given["intermediate_timesteps"] = None  # Sana Sprint's own is for two steps only
        guided = guidance_arguments(self.pipe, self._known, self._guidance, self._negative, prompts=count)
        return given | guided | {"output_type": "np"}

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        per_call: int | None = None,
        embeddings: Callable[[int], Mapping[str, Any]] | None = None,
        latents: Tensor | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.floating]:
        """Makes images.

        Args:
            prompts: B texts.
            seeds: The seeds of the images' generators, one each.
            per_call: Images per call of the pipeline, all by default; halved where the device has no memory for them.
            embeddings: embeddings(count) -> what a call of so many images is given in place of texts; see
                `PipelineDenoiser.as_arguments`.
            latents: Initial noise in place of the generators', one row each, as `PipelineDenoiser.packed` gives it.
            progress: progress(done, total), in steps of all images: called during the sampling where the pipeline
                tells of its steps, and after every call. What it raises ends the sampling.

        Returns:
            (B, H, W, 3) in [0, 1].

        Raises:
            InputError: The pipeline refuses the settings or prompts.
            NonFiniteError: The model made NaN or infinity.
            OutOfMemory: Not even one image fits.
        """
        count, size, parts, start = len(seeds), per_call or len(seeds), [], 0
        message = f"the device has no memory for {_images(min(size, count))}: give a smaller height and width"
        while start < count:
            rows = slice(start, min(start + min(size, self._fits or size), count))
            arguments = self._of(prompts[rows], seeds[rows])
            if embeddings is not None:
                arguments = embedded(arguments, embeddings(rows.stop - rows.start), self._known)
            if latents is not None:
                arguments["latents"] = latents[rows]
            try:
                with memory_needed(message):
                    parts.append(self._made(arguments, _Steps(progress, rows, count, self.steps or 1)))
            except OutOfMemory:
                if rows.stop - start == 1:
                    raise
                self._fits = (rows.stop - start) // 2
                continue
            start = rows.stop
        return np.concatenate(parts)

    def _of(self, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
        """The arguments of one call."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return {"prompt": list(prompts), **self.arguments(len(seeds)), "generator": generators}

    def _made(self, arguments: dict[str, Any], steps: "_Steps") -> NDArray[np.floating]:
        if steps.progress is not None:
            names = ("callback_on_step_end", "callback")  # PixArt has the older one only
            arguments |= {name: steps.one for name in names if name in self._known and not arguments.keys() & {*names}}
        try:
            with own_calls(), _as_before(self.pipe, self._scheduler):
                made = self._call(self.pipe, **arguments).images
        except CryptomnesiaError:
            raise  # e.g. from a progress bar
        except ValueError as error:
            raise InputError(f"{type(self.pipe).__name__} refuses to sample: {error}") from error
        if not np.isfinite(made).all():
            raise NonFiniteError("the model made an image with NaN or infinity: use another dtype")
        steps.all()
        return made


class _Steps:
    """Tells how many steps of all images are done, while one call makes some of them.

    The last step is done once the images are, so that no call counts more steps than asked, as some schedulers take.
    """

    def __init__(self, progress: Progress | None, rows: slice, count: int, steps: int):
        self.progress, self.steps, self.done = progress, steps, 0
        self.before, self.images, self.total = rows.start * steps, rows.stop - rows.start, count * steps

    def one(self, *step: Any) -> dict[str, Any]:
        """Reports one step; to be called by the pipeline after each."""
        if self.done < self.steps - 1:
            self.done += 1
            self._tell()
        return {}

    def all(self) -> None:
        """Reports the last step; to be called when the images are there."""
        self.done = self.steps
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.before + self.done * self.images, self.total)


@contextmanager
def _as_before(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Within the block, samples quietly with a copy of that scheduler, or of the pipeline's own."""
    own, bar = getattr(pipe, "scheduler", None), getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(**{**bar, "disable": True})
    try:
        if own is not None:
            pipe.scheduler = deepcopy(own if scheduler is None else scheduler)
        with attention_as_found(pipe):
            yield
    except BaseException:
        offload_again(pipe)
        raise
    finally:
        pipe._progress_bar_config = bar
        if own is not None:
            pipe.scheduler = own


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images in one call, nor for one alone"


def ddim(pipe: Any) -> Any:
    """Returns a DDIM scheduler with the settings of the pipeline's own. Raises MissingPackage without diffusers."""
    return require("diffusers", "diffusers").DDIMScheduler.from_config(pipe.scheduler.config)


def as_bytes(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Returns values in [0, 1] as uint8 in [0, 255], rounded."""
    return (images * 255).round().astype(np.uint8)
