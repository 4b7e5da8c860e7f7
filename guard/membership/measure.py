"""A number per image: how much a denoiser finds to correct in it. Smaller = more like what it was trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..comparability import IMAGE_FEATURES, PROMPT_FEATURES, image_features, prompt_features
from ..denoiser import Denoiser
from ..errors import InputError
from ..image_model import ImageModel
from ..images import CAPTION, SUFFIXES, images_among
from ..pixels import digest_of, fitted, read_picture
from ..progress import Progress
from ..prompts.captions import caption_of
from ..signals.batching import rows_per_call
from .numbers import GRADIENTS, ROUND_TRIP, STATISTIC, Numbers, Picture
from .settings import Settings
from .store import Store

COMPLEXITY = IMAGE_FEATURES.index("compressed size")  # its column among the features


@dataclass(frozen=True)
class Measured:
    """Images with their numbers.

    Attributes:
        names: Names of the n images.
        statistic: (n,) float64; smaller = more member-like. The log of the method's own statistic where that is a sum
            of powers, so that ratios count; the mean over timesteps.
        features: (n, F) plain features, see `comparability`.
        digests: (n,) digest of each image's pixels.
        skipped: Why files were left out, by their names.
        sizes: How many different sizes in pixels the images have.
        gradients: (n, L) log norms of each layer's gradient, where these were asked for.
        round_trips: (n,) see `round_trip`, where these were asked for; about 0 = an autoencoder's own image.
    """

    names: tuple[str, ...]
    statistic: NDArray[np.float64]
    features: NDArray[np.float64]
    digests: tuple[str, ...]
    skipped: dict[str, str]
    sizes: int
    gradients: NDArray[np.float64] | None = None
    round_trips: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> "Measured":
        """Returns the images of these rows, in their order, with their numbers."""
        return replace(
            self,
            names=tuple(self.names[i] for i in rows),
            statistic=self.statistic[rows],
            features=self.features[rows],
            digests=tuple(self.digests[i] for i in rows),
            gradients=None if self.gradients is None else self.gradients[rows],
            round_trips=None if self.round_trips is None else self.round_trips[rows],
        )

    some = subset  # the old name


def feature_names(measured: Measured) -> tuple[str, ...]:
    """Returns the names of the F columns of its features; those of prompts come last, where there are prompts."""
    return (IMAGE_FEATURES + PROMPT_FEATURES)[: measured.features.shape[1]]


def gather_images(
    given: Any, prompts: Sequence[str] | bool | None
) -> tuple[list[Any], list[str] | None, dict[str, str]]:
    """Lists images and their prompts.

    Args:
        given: A folder, or a list of what `read_picture` reads.
        prompts: One per image, or True for those in text files beside the images of a folder.

    Returns:
        The images, their prompts (None if they are not wanted), and by file name why it was left out.

    Raises:
        InputError: No such folder, or prompts that do not fit.
    """
    skipped: dict[str, str] = {}
    if isinstance(given, str | Path):
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise InputError(f"there is no folder {given}: check the name")
        inside = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
        files = [file for file in inside if file.is_file()]
        images: list[Any] = images_among(files)
        odd = (file for file in files if file.suffix.lower() not in (*SUFFIXES, CAPTION))
        skipped = {str(file): f"no image ({', '.join(SUFFIXES)})" for file in odd}
        skipped |= {
            str(file): "a link that leads nowhere" for file in inside if file.is_symlink() and not file.exists()
        }
    else:
        images = list(given)
    if prompts is True:
        return images, [prompt_of(image) for image in images], skipped
    texts = list(prompts) if prompts else None
    if texts is not None and len(texts) != len(images):
        raise InputError(f"{len(texts)} prompts do not fit {len(images)} images: give one per image, or none")
    return images, texts, skipped


def measure(
    denoiser: Denoiser,
    images: Any,
    prompts: Sequence[str] | bool | None = None,
    settings: Settings | None = None,
    *,
    size: tuple[int, int] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    round_trip: bool = False,
) -> Measured:
    """Measures images, a few at a time. Unreadable ones are left out, equal ones count once; both are stated.

    Args:
        denoiser: A model that reads images.
        images: A folder, or a list of files, Pillow images, arrays or tensors; see `read_picture`.
        prompts: One per image, or True: in IMAGE.txt beside IMAGE.png. Without them the empty prompt is used.
        settings: How to measure.
        size: Height and width in pixels that images are brought to; the model's own by default.
        store: Where numbers are kept, and looked up first.
        progress: Called with the numbers of images done and of all.
        round_trip: Also send each image twice through the autoencoder, to see whether a model made it.

    Returns:
        The images with one number each; smaller = more member-like.

    Raises:
        InputError: A folder or prompts that do not fit, unknown settings.
        NotApplicable: The model reads no images, or no prompts, or has no gradients where they are asked for.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
    """
    settings = (settings or Settings()).complete(denoiser, bool(prompts))
    model, store = ImageModel("the model", denoiser, size=size), store or Store()
    listed, texts, skipped = gather_images(images, prompts)
    numbers = Numbers(model, settings, store, round_trip)
    per_call = max(1, rows_per_call(denoiser, denoiser.latent_shape()) // settings.draws)
    seen: list[Picture] = []
    waiting: list[tuple[Picture, Tensor]] = []
    for picture, pixels in _pictures(listed, texts, skipped, progress):
        seen.append(picture)
        if numbers.lacks(picture):
            waiting.append((picture, fitted(pixels, model.pixels)))
        if len(waiting) >= per_call:
            numbers.measure(waiting)
            waiting = []
    if waiting:
        numbers.measure(waiting)
    statistic = np.asarray(numbers.column(STATISTIC, seen))
    features = np.array([picture.features for picture in seen], dtype=np.float64)
    if settings.by_complexity and seen:
        statistic = statistic - features[:, COMPLEXITY]  # both are logarithms
    return Measured(
        names=tuple(picture.name for picture in seen),
        statistic=statistic,
        features=features,
        digests=tuple(picture.digest for picture in seen),
        skipped=skipped,
        sizes=len({picture.size for picture in seen}),
        gradients=numbers.column(GRADIENTS, seen),
        round_trips=numbers.column(ROUND_TRIP, seen),
    )


def _pictures(
    images: Sequence[Any],
    prompts: Sequence[str] | None,
    skipped: dict[str, str],
    progress: Progress | None,
) -> Iterator[tuple[Picture, Tensor]]:
    """Each picture once, with its pixels; adds what cannot be used to `skipped`."""
    names: dict[str, str] = {}
    for number, image in enumerate(images):
        name = str(image) if isinstance(image, str | Path) else f"image {number + 1}"
        try:
            pixels = read_picture(image, name)
            size = tuple(pixels.shape[-2:])
            digest = digest_of(pixels)
            if digest in names:
                raise InputError(f"the same picture as {names[digest]}: counted once")
        except InputError as error:
            skipped[name] = str(error)
        else:
            names[digest], prompt = name, None if prompts is None else prompts[number]
            features = image_features(pixels) + ([] if prompt is None else prompt_features(prompt))
            yield Picture(name, prompt, digest, size, features), pixels
        if progress:
            progress(number + 1, len(images))


def prompt_of(image: Any) -> str:
    """Returns the text of the file beside an image. Raises InputError if there is none."""
    if not isinstance(image, str | Path):
        raise InputError("prompts beside images are for files only: give a list of prompts")
    return caption_of(Path(image))
