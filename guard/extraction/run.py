"""One extraction in its folder: which words were checked, and which images were made of them, kept as it goes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.sampling import TextToImage, as_bytes
from ..errors import InputError, NotApplicable
from ..files import write_file
from ..guard import Guard
from ..images import open_image, png
from ..protocols import pipeline_of
from ..run_folder import refuse
from ..strict_json import read_object

FILE, GENERATED = "run.json", "generated"
SCHEMA = "cryptomnesia/extraction-run/1"
PARTS = ("checked", "made", "located")
CHUNK = 16  # prompts that are checked and kept together
PER_CALL = 4  # images
LARGEST_SEED = 2**64 - 1
_LIMIT = 1 << 28  # bytes


@dataclass(frozen=True)
class Sampling:
    """How images are made.

    Attributes:
        seeds: Images of each prompt.
        seed: Seed of the first one, and of the checks; those of the others follow.
        steps, guidance, height, width: As `TextToImage` has them; None for the pipeline's own.
    """

    seeds: int = 4
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= 64:
            raise InputError(f"1 to 64 images are made of each prompt, not {self.seeds}")

    @property
    def each(self) -> list[int]:
        """The seeds of the images of a prompt."""
        return [(self.seed + i) % (LARGEST_SEED + 1) for i in range(self.seeds)]


@dataclass
class Run:
    """What was done so far in a folder; see `open_run`.

    Attributes:
        folder: The folder.
        settings: What the numbers rest on; plain data for JSON.
        checked: By prompt: score, p_value, verdict and reason of its check.
        made: By prompt: the SHA-256 of each image's pixels, by its seed.
        located: By prompt: the seed of the image that was located, and the report of it, or None where that is not
            applicable.
    """

    folder: Path
    settings: dict[str, Any]
    checked: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    located: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self, guard: Guard, prompts: Sequence[str], sampling: Sampling) -> Iterator[int]:
        """Checks those of the prompts that were not; yields how many are. What was yielded is on disk.

        Errors are those of `Guard.check_many`.
        """
        missing = [prompt for prompt in prompts if prompt not in self.checked]
        size: dict[str, Any] = {"height": sampling.height, "width": sampling.width}
        for start in range(0, len(missing), CHUNK):
            for report in guard.check_many(missing[start : start + CHUNK], seed=sampling.seed, **size):
                about = {"score": report.score, "p_value": report.p_value}
                about |= {"verdict": report.verdict, "reason": report.reason}
                self.checked[str(report.prompt)] = about
            self.save()
            yield len(prompts) - len(missing) + min(start + CHUNK, len(missing))

    def make(self, guard: Guard, prompts: Sequence[str], sampling: Sampling) -> Iterator[int]:
        """Makes the missing images of the prompts; yields how many there are. What was yielded is on disk.

        Raises:
            InputError: The model makes no images, refuses the settings, or a file cannot be written.
            NonFiniteError, OutOfMemory: As `TextToImage.images` says.
        """
        host = pipeline_of(guard.denoiser, "make images", "give a pipeline")
        size: dict[str, Any] = {"height": sampling.height, "width": sampling.width}
        maker = TextToImage(host.pipe, steps=sampling.steps, guidance=sampling.guidance, **size)
        (self.folder / GENERATED).mkdir(exist_ok=True)
        done = 0
        for prompt in prompts:
            kept = self.made.setdefault(prompt, {})
            missing = [seed for seed in sampling.each if not self._there(prompt, seed)]
            for start in range(0, len(missing), PER_CALL):
                seeds = missing[start : start + PER_CALL]
                images = as_bytes(maker.images([prompt] * len(seeds), seeds, per_call=PER_CALL))
                for seed, image in zip(seeds, images, strict=True):
                    write_file(self.image(prompt, seed), png(image), "image")
                    kept[str(seed)] = _digest(image)
                self.save()
            done += sampling.seeds
            yield done

    def locate(self, guard: Guard, prompt: str, seed: int, sampling: Sampling) -> tuple[dict[str, Any] | None, Path]:
        """Returns the report of where an image reproduces training data, and its map's file; kept, once it was asked.

        Returns:
            The report, None where the question has no meaning for the model, and the file, which is there then.

        Errors are those of `Guard.locate`.
        """
        file = self.image(prompt, seed).with_suffix(".map.png")
        known = self.located.get(prompt)
        if known is not None and known["seed"] == str(seed) and (known["report"] is None or file.is_file()):
            return known["report"], file
        given: dict[str, Any] = {} if sampling.steps is None else {"steps": sampling.steps}
        given |= {"guidance": sampling.guidance, "height": sampling.height, "width": sampling.width}
        report = None
        with suppress(NotApplicable):
            location = guard.locate(prompt, seed=seed, **given)
            write_file(file, png(location.overlay()), "map")
            report = location.report.to_dict()
        self.located[prompt] = {"seed": str(seed), "report": report}
        self.save()
        return report, file

    def image(self, prompt: str, seed: int) -> Path:
        """Returns where the image of a prompt and a seed lies."""
        name = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self.folder / GENERATED / f"{name}-{seed}.png"

    def save(self) -> None:
        """Writes it all, atomically. Raises InputError where that cannot be."""
        parts = {name: getattr(self, name) for name in PARTS}
        document = {"schema": SCHEMA, "settings": self.settings, **parts}
        write_file(self.folder / FILE, json.dumps(document).encode(), "extraction")

    def _there(self, prompt: str, seed: int) -> bool:
        """Whether the image is there as it was made."""
        digest, path = self.made.get(prompt, {}).get(str(seed)), self.image(prompt, seed)
        if digest is None or not path.is_file():
            return False
        try:
            return _digest(np.asarray(open_image(path).convert("RGB"))) == digest
        except InputError:  # damaged since: made anew
            return False


def open_run(folder: Path, settings: dict[str, Any]) -> Run:
    """Returns the run of a folder, begun if there is none.

    Raises:
        InputError: The folder holds one with other settings (the message tells the difference), or something odd.
    """
    path = folder / FILE
    if not path.exists():
        return Run(folder, settings)
    document = read_object(path, _LIMIT, "extraction", "give another --out")
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} is no extraction of this version ({SCHEMA}): give another --out")
    parts = [document.get(name) for name in ("settings", *PARTS)]
    if not all(isinstance(part, dict) for part in parts) or not _whole(*parts[1:]):
        raise InputError(f"{path} was changed, or is damaged: remove it to begin anew, or give another --out")
    run = Run(folder, *parts)  # type: ignore[arg-type]
    refuse(folder, run.settings, settings, "an extraction")
    return run


def _whole(checked: Any, made: Any, located: Any) -> bool:
    every = [*checked.values(), *made.values(), *located.values()]
    return (
        all(isinstance(one, dict) for one in every)
        and all(one.keys() == {"score", "p_value", "verdict", "reason"} for one in checked.values())
        and all(isinstance(digest, str) for one in made.values() for digest in one.values())
        and all(one.keys() == {"seed", "report"} for one in located.values())
    )


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
