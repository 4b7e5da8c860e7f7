"""A number per image: how much a denoiser finds to correct in it. Smaller = more like what it was trained on."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..comparability import IMAGE_FEATURES, PROMPT_FEATURES, image_features, prompt_features
from ..denoiser import Denoiser
from ..errors import InputError, NonFiniteError
from ..image_model import ImageModel
from ..images import CAPTION, SUFFIXES, images_among
from ..pixels import digest_of, fitted, read_picture
from ..progress import Progress
from ..prompts.captions import caption_of
from ..signals.batching import rows_per_call
from ..signals.membership_methods import method_named
from .store import Store

METHOD, METHOD_WITH_PROMPTS, DRAWS = "sima_mc", "sima_relative", 8
NOISE_TO_SIGNAL = 0.43
"""Where images are noised to: sigma / alpha, timestep 140 of Stable Diffusion; chosen by `benchmarks.membership`."""


@dataclass(frozen=True)
class Settings:
    """How the denoiser is measured.

    Attributes:
        method: One of `METHODS`; None for "sima_relative" where there are prompts and "sima_mc" where there are none.
        timesteps: The model's own times; None for where sigma / alpha is NOISE_TO_SIGNAL.
        draws: Number of noised copies of each image, where the method has any.
        seed: Seed of the noise.
    """

    method: str | None = None
    timesteps: tuple[float, ...] | None = None
    draws: int = DRAWS
    seed: int = 0

    def complete(self, denoiser: Denoiser, prompted: bool) -> "Settings":
        """Returns the settings with a method and with timesteps of this model. Raises InputError for unknown ones."""
        self.check()
        times = (default_timestep(denoiser),) if self.timesteps is None else self.timesteps
        denoiser.level(torch.as_tensor(times))
        method = self.method or (METHOD_WITH_PROMPTS if prompted else METHOD)
        return replace(self, method=method, timesteps=tuple(times))

    def check(self) -> None:
        """Raises InputError for an unknown method or no draw; timesteps are checked with the model, in `complete`."""
        if self.method is not None:
            method_named(self.method)
        if self.draws < 1:
            raise InputError(f"the number of noise draws is at least 1, not {self.draws}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "method": self.method,
            "timesteps": list(self.timesteps or ()),
            "draws": self.draws,
            "seed": str(self.seed),
        }


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
    """

    names: tuple[str, ...]
    statistic: NDArray[np.float64]
    features: NDArray[np.float64]
    digests: tuple[str, ...]
    skipped: dict[str, str]
    sizes: int

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
        )

    some = subset  # the old name


def feature_names(measured: Measured) -> tuple[str, ...]:
    """Returns the names of the F columns of its features; those of prompts come last, where there are prompts."""
    return (IMAGE_FEATURES + PROMPT_FEATURES)[: measured.features.shape[1]]


def default_timestep(denoiser: Denoiser) -> float:
    """Returns the model's own time whose sigma / alpha is closest to NOISE_TO_SIGNAL."""
    alphas = denoiser.levels.alphas_cumprod
    if alphas is None:
        return NOISE_TO_SIGNAL / (1 + NOISE_TO_SIGNAL)
    return int(((1 - alphas) / alphas).sqrt().sub(NOISE_TO_SIGNAL).abs().argmin())


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
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        images: list[Any] = images_among(files)
        odd = (file for file in files if file.suffix.lower() not in (*SUFFIXES, CAPTION))
        skipped = {str(file): f"no image ({', '.join(SUFFIXES)})" for file in odd}
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

    Returns:
        The images with one number each; smaller = more member-like.

    Raises:
        InputError: A folder or prompts that do not fit, unknown settings.
        NotApplicable: The model reads no images, or no prompts.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
    """
    settings = (settings or Settings()).complete(denoiser, bool(prompts))
    model, store = ImageModel("the model", denoiser, size=size), store or Store()
    listed, texts, skipped = gather_images(images, prompts)
    setup = _digest(denoiser.fingerprint, settings.to_dict(), model.autoencoder_key)
    per_call = max(1, rows_per_call(denoiser, denoiser.latent_shape()) // settings.draws)
    seen: list[_Picture] = []
    waiting: dict[str, tuple[Tensor, str | None]] = {}
    for picture, pixels in _pictures(listed, texts, skipped, progress):
        seen.append(picture)
        key = picture.key(setup)
        if store.get(key) is None:
            waiting[key] = fitted(pixels, model.pixels), picture.prompt
        if len(waiting) >= per_call:
            store.add(_statistics(model, waiting, settings))
            waiting = {}
    if waiting:
        store.add(_statistics(model, waiting, settings))
    return Measured(
        names=tuple(picture.name for picture in seen),
        statistic=np.array([store.get(picture.key(setup)) for picture in seen], dtype=np.float64),
        features=np.array([picture.features for picture in seen], dtype=np.float64),
        digests=tuple(picture.digest for picture in seen),
        skipped=skipped,
        sizes=len({picture.size for picture in seen}),
    )


@dataclass(frozen=True)
class _Picture:
    """What is kept of an image once it was read: size is (height, width), the digest that of its pixels."""

    name: str
    prompt: str | None
    digest: str
    size: tuple[int, ...]
    features: list[float]

    def key(self, setup: str) -> str:
        return _digest(setup, self.digest, self.prompt)


def _pictures(
    images: Sequence[Any],
    prompts: Sequence[str] | None,
    skipped: dict[str, str],
    progress: Progress | None,
) -> Iterator[tuple[_Picture, Tensor]]:
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
            yield _Picture(name, prompt, digest, size, features), pixels
        if progress:
            progress(number + 1, len(images))


def _statistics(model: ImageModel, batch: dict[str, tuple[Tensor, str | None]], settings: Settings) -> dict[str, float]:
    latents = torch.cat([model.coder.encode_image(pixels) for pixels, _ in batch.values()])
    texts = [text for _, text in batch.values() if text is not None]
    condition = model.encode(texts) if texts else None
    method = method_named(settings.method or METHOD)
    values = method(
        model.denoiser, latents, settings.timesteps or (), condition, settings.draws, settings.seed
    ).double()
    values = (values.clamp_min(1e-30).log() if method.positive else values).mean(0)
    if not torch.isfinite(values).all():
        raise NonFiniteError(
            f"the statistic {settings.method} of an image is NaN or infinity: load the model in float32"
        )
    return dict(zip(batch, values.tolist(), strict=True))


def prompt_of(image: Any) -> str:
    """Returns the text of the file beside an image. Raises InputError if there is none."""
    if not isinstance(image, str | Path):
        raise InputError("prompts beside images are for files only: give a list of prompts")
    return caption_of(Path(image))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
