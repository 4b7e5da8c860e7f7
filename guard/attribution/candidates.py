"""Who may have made an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ..adapters import to_denoiser
from ..denoiser import Denoiser
from ..errors import InputError
from ..image_model import ImageModel
from ..protocols import PipelineDenoiser
from .library import Signatures

NONE = "none of these"
SAMPLES = 4096  # of each weight that are compared


@dataclass(frozen=True)
class Candidate(ImageModel):
    """A model that may have made an image; see `ImageModel`.

    Attributes:
        library: The model's signatures on images of its own; only needed where signatures are evidence.
    """

    library: Signatures | None = None

    @property
    def _called(self) -> str:
        return f"the candidate {self.name!r}"


def check_candidates(candidates: Sequence[Candidate] | Mapping[str, Any]) -> list[Candidate]:
    """Checks that candidates can be told apart.

    Args:
        candidates: Candidate objects, or pipelines or denoisers by name.

    Returns:
        The candidates in their order.

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
    keys = [candidate.autoencoder_identity for candidate in (one, other)]
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
