"""The numbers of pictures: looked up where they were kept, measured where not, and kept at once."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NonFiniteError
from ..image_model import ImageModel
from ..signals.gradient_norms import gradient_norms
from ..signals.membership_methods import method_named
from .round_trip import round_trips
from .settings import METHOD, Settings
from .store import Store

STATISTIC, GRADIENTS, ROUND_TRIP = "statistic", "gradients", "round trip"


@dataclass(frozen=True)
class Picture:
    """What is kept of an image once it was read: size is (height, width), the digest that of its pixels."""

    name: str
    prompt: str | None
    digest: str
    size: tuple[int, ...]
    features: list[float]


class Numbers:
    """What is asked of each picture.

    Args:
        model: Whom to ask.
        settings: How, complete.
        store: Where numbers are looked up and kept.
        round_trip: Whether each picture is also sent twice through the autoencoder.
    """

    def __init__(self, model: ImageModel, settings: Settings, store: Store, round_trip: bool):
        self.model, self.settings, self.store = model, settings, store
        self.wanted = [STATISTIC]
        self.wanted += [GRADIENTS] if settings.features == "gradients" else []
        self.wanted += [ROUND_TRIP] if round_trip else []

    def lacks(self, picture: Picture) -> bool:
        """Returns whether anything is to be measured of it."""
        return any(not self._has(kind, picture) for kind in self.wanted)

    def measure(self, batch: list[tuple[Picture, Tensor]]) -> None:
        """Measures what is missing of pictures, with their pixels (1, 3, H, W) at the model's size, and keeps it.

        Raises NonFiniteError, NotApplicable, OutOfMemory.
        """
        for kind in self.wanted:
            some = [(picture, pixels) for picture, pixels in batch if not self._has(kind, picture)]
            if some:
                keys, pixels = [self._key(kind, picture) for picture, _ in some], [pixels for _, pixels in some]
                if kind == ROUND_TRIP:
                    found = [float(round_trips(self.model.coder, one)) for one in pixels]
                    self.store.add(dict(zip(keys, found, strict=True)))
                    continue
                latents = torch.cat([self.model.coder.encode_image(one) for one in pixels])
                texts = [picture.prompt for picture, _ in some if picture.prompt is not None]
                if kind == STATISTIC:
                    self.store.add(dict(zip(keys, statistics(self.model, latents, texts, self.settings), strict=True)))
                else:
                    norms = self._norms(latents, texts).tolist()
                    self.store.add({}, dict(zip(keys, norms, strict=True)))

    def column(self, kind: str, pictures: list[Picture]) -> NDArray[np.float64] | None:
        """Returns the numbers of that kind, (n,) or, of gradients, (n, L); None where they were not asked for."""
        if kind not in self.wanted:
            return None
        look_up = self.store.vector if kind == GRADIENTS else self.store.get
        return np.array([look_up(self._key(kind, picture)) for picture in pictures], dtype=np.float64)

    def _norms(self, latents: Tensor, texts: list[str]) -> Tensor:
        condition = self.model.encode(texts) if texts else None
        asked = self.settings
        return gradient_norms(
            self.model.denoiser, latents, asked.timesteps or (), condition, draws=asked.draws, seed=asked.seed
        )

    def _has(self, kind: str, picture: Picture) -> bool:
        look_up = self.store.vector if kind == GRADIENTS else self.store.get
        return look_up(self._key(kind, picture)) is not None

    def _key(self, kind: str, picture: Picture) -> str:
        if kind == ROUND_TRIP:  # whatever the denoiser
            return digest(ROUND_TRIP, self.model.autoencoder_key, picture.digest)
        more = () if kind == STATISTIC else (kind,)
        return digest(self._setup, picture.digest, picture.prompt, *more)

    @cached_property
    def _setup(self) -> str:
        plain = replace(self.settings, features="statistic", by_complexity=False).to_dict()
        return digest(self.model.denoiser.fingerprint, plain, self.model.autoencoder_key)


def statistics(model: ImageModel, latents: Tensor, texts: list[str], settings: Settings) -> list[float]:
    """Returns each latent's statistic, the log of one that is a sum of powers; smaller = more member-like.

    Args:
        model: Whom to ask.
        latents: Clean latents (B, C, H, W).
        texts: Their prompts, or none for the empty one.
        settings: Complete ones.

    Raises:
        NonFiniteError: A statistic is NaN or infinity.
    """
    condition, method = model.encode(texts) if texts else None, method_named(settings.method or METHOD)
    values = method(model.denoiser, latents, settings.timesteps or (), condition, settings.draws, settings.seed)
    values = values.double()
    values = (values.clamp_min(1e-30).log() if method.positive else values).mean(0)
    if not torch.isfinite(values).all():
        raise NonFiniteError(
            f"the statistic {settings.method} of an image is NaN or infinity: load the model in float32"
        )
    return values.tolist()


def digest(*parts: object) -> str:
    """Returns the SHA-256 of plain values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
