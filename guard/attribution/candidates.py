"""Who may have made an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..adapters import to_denoiser
from ..denoiser import Denoiser, fingerprint, weights_of
from ..errors import InputError, NotApplicable
from .inversion import Autoencoder
from .library import Signatures

NONE = "none of these"


@dataclass(frozen=True)
class Candidate:
    """A model that may have made an image.

    Attributes:
        name: What people call it.
        denoiser: The model.
        autoencoder: What encodes and decodes its images; the denoiser itself where its host has that.
        size: Height and width in pixels of the images that it makes by default; known for pipelines.
        library: Its signatures on images of its own, only needed where signatures are evidence.
    """

    name: str
    denoiser: Denoiser
    autoencoder: Autoencoder | None = None
    size: tuple[int, int] | None = None
    library: Signatures | None = None
    _key: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def coder(self) -> Autoencoder:
        """Its autoencoder. Raises NotApplicable if there is none."""
        coder: Any = self.autoencoder or self.denoiser
        if not (hasattr(coder, "encode_image") and hasattr(coder, "decode")):
            raise NotApplicable(f"the candidate {self.name!r} has no autoencoder, so it cannot be shown an image")
        return coder

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of its images. Raises InputError where that is not known."""
        if self.size is not None:
            return self.size
        factor = getattr(getattr(self.denoiser, "pipe", None), "vae_scale_factor", None)
        if factor is None:
            raise InputError(f"the image size of the candidate {self.name!r} is not known: give size=(height, width)")
        _, height, width = self.denoiser.latent_shape()
        return height * factor, width * factor

    @property
    def autoencoder_key(self) -> str:
        """Equal for candidates that share autoencoder and size, so that an image is encoded once for all of them."""
        if not self._key:
            self._key.append(f"{_identity(self.coder)} {self.pixels}")
        return self._key[0]


def _identity(coder: Any) -> str:
    """What the host says it is, a digest of a pipeline's, or else this very object."""
    if hasattr(coder, "identity"):
        return coder.identity
    pipe = getattr(coder, "pipe", None)
    return str(id(coder)) if pipe is None else fingerprint(weights_of([pipe.vae]), str(pipe.vae.config))


def check_candidates(candidates: Sequence[Candidate] | Mapping[str, Any]) -> list[Candidate]:
    """The candidates, if they can be told apart.

    Args:
        candidates: Candidate objects, or pipelines or denoisers by name.

    Raises:
        InputError: None, or two of the same name, or one called "none of these".
    """
    if isinstance(candidates, Mapping):
        candidates = [Candidate(str(name), to_denoiser(model)) for name, model in candidates.items()]
    if not candidates:
        raise InputError("the list of candidates is empty: name at least one model that may have made the image")
    names = [candidate.name for candidate in candidates]
    for name in names:
        if not name.strip() or name == NONE:
            raise InputError(f"a candidate cannot be called {name!r}: give it another name")
        if names.count(name) > 1:
            raise InputError(f"two candidates are called {name!r}: rename one")
    return list(candidates)


def encode_prompts(candidate: Candidate, prompts: Sequence[str]) -> Any:
    """The condition of prompts. Raises NotApplicable for a model that reads no text."""
    encode = getattr(candidate.denoiser, "encode", None)
    if encode is None:
        raise NotApplicable(f"the candidate {candidate.name!r} cannot read prompts: leave the prompt out")
    return encode(list(prompts))


def check_images(images: Sequence[Tensor]) -> None:
    """Raises InputError if there is no image."""
    if not images:
        raise InputError("no image was given: give at least one")
