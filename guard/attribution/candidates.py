"""Who may have made an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..adapters import to_denoiser
from ..denoiser import Condition, Denoiser
from ..errors import InputError, NotApplicable
from ..protocols import ImageDenoiser, PipelineDenoiser, PromptEncoder
from .inversion import Autoencoder
from .library import Signatures

NONE = "none of these"
SAMPLES = 4096  # of each weight that are compared


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
        coder = self.autoencoder or self.denoiser
        if not isinstance(coder, ImageDenoiser):
            raise NotApplicable(f"the candidate {self.name!r} has no autoencoder, so it cannot be shown an image")
        return coder

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of its images. Raises InputError where that is not known."""
        if self.size is not None:
            return self.size
        pixels = self.denoiser.pixels(self.denoiser.latent_shape())
        if pixels is None:
            raise InputError(f"the image size of the candidate {self.name!r} is not known: give size=(height, width)")
        return pixels

    @property
    def autoencoder_key(self) -> str:
        """Equal for candidates that share autoencoder and size, so that an image is encoded once for all of them."""
        if not self._key:
            self._key.append(f"{_identity(self.coder)} {self.pixels}")
        return self._key[0]


def _identity(coder: object) -> str:
    """What the host says it is, a digest of a pipeline's, or else this very object."""
    return _known_identity(coder) or str(id(coder))


@runtime_checkable
class _Identified(Protocol):
    """An autoencoder whose host says what it is."""

    @property
    def autoencoder_identity(self) -> str | None: ...


def _known_identity(coder: object) -> str | None:
    return coder.autoencoder_identity if isinstance(coder, _Identified) else None


def check_candidates(candidates: Sequence[Candidate] | Mapping[str, Any]) -> list[Candidate]:
    """The candidates, if they can be told apart.

    Args:
        candidates: Candidate objects, or pipelines or denoisers by name.

    Raises:
        InputError: None, or two of the same name or of equal weights, or one called "none of these".
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
    for one, other in combinations(candidates, 2):
        if _one_model(one, other):
            raise InputError(
                f"the candidates {one.name!r} and {other.name!r} have equal weights: they are one model, so nothing "
                "tells who of them made an image; leave one out"
            )
    return list(candidates)


def _one_model(one: Candidate, other: Candidate) -> bool:
    """Whether both have the same network, in whatever precision, and no autoencoders that are known to differ."""
    if not (one.denoiser.fingerprint == other.denoiser.fingerprint or _equal_but_for_precision(one, other)):
        return False
    keys = [_known_identity(candidate.autoencoder or candidate.denoiser) for candidate in (one, other)]
    same_precision = one.denoiser.dtype == other.denoiser.dtype
    return None in keys or keys[0] == keys[1] or not same_precision


def _equal_but_for_precision(one: Candidate, other: Candidate) -> bool:
    """Whether the networks' weights differ by what rounding to the coarser of two precisions explains."""
    dtypes = one.denoiser.dtype, other.denoiser.dtype
    states = [_state(candidate.denoiser) for candidate in (one, other)]
    if dtypes[0] == dtypes[1] or not states[0] or states[0].keys() != states[1].keys():
        return False
    # bfloat16 is the coarsest that is in use
    coarsest = max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)
    return all(_close(weight, states[1][name], coarsest) for name, weight in states[0].items())


def _state(denoiser: Denoiser) -> Mapping[str, Tensor]:
    network = denoiser.network if isinstance(denoiser, PipelineDenoiser) else None
    return network.state_dict() if isinstance(network, torch.nn.Module) else {}


def _close(a: Tensor, b: Tensor, precision: float) -> bool:
    step = max(1, a.numel() // SAMPLES)
    values = [weight.detach().flatten()[::step].float().cpu() for weight in (a, b)]
    return a.shape == b.shape and torch.allclose(values[0], values[1], rtol=precision, atol=1e-6)


def encode_prompts(candidate: Candidate, prompts: Sequence[str]) -> Condition:
    """The condition of prompts. Raises NotApplicable for a model that reads no text."""
    if not isinstance(candidate.denoiser, PromptEncoder):
        raise NotApplicable(f"the candidate {candidate.name!r} cannot read prompts: leave the prompt out")
    return candidate.denoiser.encode(list(prompts))


def check_images(images: Sequence[Tensor]) -> None:
    """Raises InputError if there is no image."""
    if not images:
        raise InputError("no image was given: give at least one")
