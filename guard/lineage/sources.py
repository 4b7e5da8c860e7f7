"""Can the images of several models be compared at all? They must be of the same prompts, and each by one model only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..pixels import digest_of
from ..prompts.recorded import alike, recorded_prompt
from .folders import ONE_PROMPT, Images


def common(sources: Mapping[str, Images], dimension: int) -> list[str]:
    """Checks that all models have enough images of the same prompts, by the prompts' names alone.

    Args:
        sources: Images by prompt, by model, the target first.
        dimension: Each model needs at least one image more than this of each prompt.

    Returns:
        The prompts.

    Raises:
        InputError: Prompts differ between models, or one has too few images.
    """
    first = next(iter(sources.values()))
    for name, images in sources.items():
        if sorted(images) != sorted(first):
            raise InputError(
                f"{name} has images of {_listed(images)}, the target of {_listed(first)}: "
                "all models need images of the same prompts"
            )
        for prompt, shown in images.items():
            if len(shown) <= dimension:
                raise InputError(
                    f"{name} has {len(shown)} images{_of(prompt)}, too few for {dimension} dimensions: "
                    f"give at least {dimension + 1}, better 100"
                )
    return list(first)


def prompts_known(sources: Mapping[str, Images]) -> bool:
    """Returns whether names, or what images say of themselves, tell that all models were given the same prompts.

    What images say is read whatever their folders are called; see `prompts.recorded`.

    Raises:
        InputError: Images under one name are of different prompts.
    """
    everything = True
    for prompt in next(iter(sources.values())):
        first_by_prompt: dict[str, tuple[str, str]] = {}
        for name, images in sources.items():
            for image in images[prompt]:
                text = recorded_prompt(image)
                if text is None:
                    everything &= prompt != ONE_PROMPT
                elif first_by_prompt and alike(text) not in first_by_prompt:
                    raise InputError(_different(name, text, *next(iter(first_by_prompt.values()))))
                else:
                    first_by_prompt.setdefault(alike(text), (name, text))
    return everything


class Distinct:
    """Checks that no image is given as two models', or as of two prompts."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}
        self._shared: dict[tuple[str, str], list[str]] = {}

    def add(self, name: str, prompt: str, pictures: Sequence[Tensor], images: Sequence[Any]) -> None:
        """Notes pictures (1, 3, H, W) of one model and prompt, with the images that they were read from.

        Raises InputError for a picture that the same model was given as one of another prompt.
        """
        for picture, image in zip(pictures, images, strict=True):
            other, first_prompt = self._first.setdefault(digest_of(picture), (name, prompt))
            if other != name:
                self._shared.setdefault((other, name), []).append(_called(image))
            elif first_prompt != prompt:
                raise InputError(f"{name} shows the same image{_of(first_prompt)} and{_of(prompt)}: take it out of one")

    def check(self, count: int) -> None:
        """Raises InputError if any of the `count` images of each model so far was given as another's, too."""
        for (one, other), shared in self._shared.items():
            example = f", e.g. {shared[0]}" if shared[0] else ""
            raise InputError(
                f"{one} and {other} have {len(shared)} of {count} images in common{example}: these are the same "
                "images, which say nothing about lineage; take them out of one"
            )


def _different(name: str, text: str, other: str, first: str) -> str:
    if name == other:
        return f"{name} has images of {first!r} and of {text!r} in one folder: put each prompt's in a separate folder"
    return f"{name} has images of {text!r}, {other} of {first!r}: all models must be given the same prompts"


def _called(image: Any) -> str:
    return Path(image).name if isinstance(image, str | Path) else ""


def _of(prompt: str) -> str:
    return f" of {prompt!r}" if prompt != ONE_PROMPT else ""


def _listed(images: Images) -> str:
    return ", ".join("one unnamed prompt" if prompt == ONE_PROMPT else repr(prompt) for prompt in images)
