"""Images of memorized prompts, kept in small in the folder of a benchmark, and what they say of each prompt."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_file
from ..images import open_image, png
from ..run_folder import refuse
from .reproduction import References, Reproduction, reproduction, thumbnails
from .run import Run

FOLDER = "images"
_PART = "images"
Make = Callable[[str], NDArray[np.uint8]]


class Generation:
    """The images of a benchmark's memorized prompts.

    Args:
        run: The benchmark.
        texts: The prompts.
        settings: How the images are made; plain data for JSON.
        references: Training images to compare with, or None.

    Raises:
        InputError: The folder holds images with other settings.
    """

    def __init__(self, run: Run, texts: Sequence[str], settings: dict[str, Any], references: References | None):
        self.run, self.texts, self.references = run, list(texts), references
        known = run.parts.get(_PART)
        if known is not None:
            refuse(run.folder, known["settings"], settings, "images")
        else:
            run.parts[_PART] = {"settings": settings, "seconds": 0.0, "prompts": []}
        self.part = run.parts[_PART]

    @property
    def done(self) -> int:
        """The number of prompts whose images are made."""
        return len(self.part["prompts"])

    @property
    def seconds(self) -> float:
        """The time that they took."""
        return self.part["seconds"]

    def steps(self, make: Make) -> Iterator[int]:
        """Makes what is missing; yields the prompts done. What was yielded is on disk.

        Args:
            make: make(prompt) -> its images, (S, H, W, 3) uint8, one per seed.

        Raises:
            InputError: A file cannot be written, or a reference cannot be read.
            NonFiniteError, OutOfMemory: As `make`.
        """
        folder = self.run.folder / FOLDER
        folder.mkdir(exist_ok=True)
        while self.done < len(self.texts):
            started, text = time.monotonic(), self.texts[self.done]
            images = make(text)
            reference = None if self.references is None else self.references.of(text, images.shape[1:3])
            about = reproduction(images, reference)
            shown = images if reference is None else np.concatenate([reference[None], images])
            write_file(self._strip(self.done), png(np.concatenate(list(thumbnails(shown)), 1), small=True), "image")
            self.part["prompts"].append(asdict(about))
            self.part["seconds"] += time.monotonic() - started
            self.run.save()
            yield self.done

    def reproductions(self) -> dict[str, Reproduction]:
        """Returns what is known of each prompt, by text. Raises InputError where the file was changed."""
        try:
            found = [Reproduction(**prompt) for prompt in self.part["prompts"]]
        except TypeError as error:
            raise InputError(f"{self.run.folder} holds odd images ({error}): give another --out") from error
        return dict(zip(self.texts, found, strict=True))

    def pictures(self, text: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Returns the prompt's small images (S, H, W, 3), and its reference (H, W, 3) or None. Raises InputError."""
        number = self.texts.index(text)
        about = Reproduction(**self.part["prompts"][number])
        count = self.part["settings"]["images"] + (about.to_reference is not None)
        strip = np.asarray(open_image(self._strip(number)).convert("RGB"))
        images = np.stack(np.split(strip, count, axis=1))
        return (images, None) if about.to_reference is None else (images[1:], images[0])

    def _strip(self, number: int) -> Path:
        return self.run.folder / FOLDER / f"{number:05d}.png"
