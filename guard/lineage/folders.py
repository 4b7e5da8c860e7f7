"""Folders of images by one model: of one prompt, or a folder for each prompt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..images import images_among, no_images
from ..prompts.recorded import RECORD, recorded_for_folder

ONE_PROMPT = ""
Images = Mapping[str, Sequence[Any]]
"""Images by prompt; see `pixels.read_picture` for what an image may be."""


def images_in(folder: str | Path) -> Images:
    """Returns the images of a folder by prompt: `ONE_PROMPT` if they lie in it, else the prompt of each inner folder.

    An inner folder that `generate` filled has its prompt in a file; any other is called by its prompt. What is not
    called like an image is passed over.

    Raises:
        InputError: There is no such folder, it holds no images, or both images and folders of images.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}: check the name")
    loose = images_among(root.iterdir())
    inner = {
        _prompt_of(part): files
        for part in sorted(root.iterdir())
        if part.is_dir() and (files := images_among(part.iterdir()))
    }
    if loose and inner:
        raise InputError(f"{root} holds images and folders of images: put each prompt's images in a separate folder")
    if not loose and not inner:
        raise no_images(root)
    return {ONE_PROMPT: loose} if loose else inner


def as_images(given: Any) -> Images:
    """Returns a folder, the images of one prompt, or images by prompt, as images by prompt.

    Raises InputError if a prompt has no image, and what `images_in` raises.
    """
    if isinstance(given, str | Path):
        return images_in(given)
    images: Images = given if isinstance(given, Mapping) else {ONE_PROMPT: list(given)}
    if not images or not all(len(listed) for listed in images.values()):
        raise InputError("no image was given: give at least 11 of each prompt, better 100")
    return images


def _prompt_of(folder: Path) -> str:
    if not (folder / RECORD).is_file():
        return folder.name
    prompt = recorded_for_folder(folder)
    if prompt is None:
        raise InputError(f"{folder / RECORD} does not name the prompt of its images: remove it, or make them again")
    return prompt
