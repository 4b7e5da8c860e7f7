"""Whose denoiser is this? Its signature beside those of known models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..calibration import conformal
from ..denoiser import Denoiser
from ..errors import InputError, require
from ..finite import require_finite
from ..progress import Progress
from ..signals.spectral import cosine_distance, signature
from .library import Signatures, check_library

UNKNOWN = "unknown"
ALPHA = 0.05
SAME = 0.001  # share of the library's own spread: half precision moves it by 0.00006, a small LoRA by 0.026
SVM_C = 0.1
EQUAL = 1e-6  # what rounding leaves between two signatures of one image


@dataclass(frozen=True)
class Identification:
    """The answer to which known model a denoiser likely is.

    Attributes:
        decision: A name of the library, or "unknown".
        distances: Mean cosine distance to each entry, smaller = more alike; None where latents do not fit it.
        margin: How much farther the second closest is than the closest, as a share of the second's distance, in
            [0, 1]; None with fewer than two.
        p_value: Share of the library's own images that lie at least as far from their model; None where the library's
            own latents were used, or entries have a single signature.
        threshold: Largest distance at which the closest entry is named.
        paired: Whether both denoisers were measured on the same latents, those that the library brings.
        images: How many signatures the distances rest on, per entry.
        votes: Share of signatures that a linear classifier gives each entry; None unless asked for.
        alike: Other entries that are the same model as the one named, or cannot be told from it.
        repeated: How many of the signatures are in the library themselves, where they are its own images: the distance
            says nothing new of these.
    """

    decision: str
    distances: dict[str, float | None]
    margin: float | None
    p_value: float | None
    threshold: float
    paired: bool
    images: int
    votes: dict[str, float] | None = None
    alike: tuple[str, ...] = ()
    repeated: int = 0

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        if self.decision == UNKNOWN:
            return UNKNOWN
        return f"likely {self.decision}" + (f", or {' or '.join(self.alike)}: one model" if self.alike else "")

    def notes(self) -> list[str]:
        """Returns sentences on what makes the answer less sure than it sounds."""
        if not self.repeated:
            return []
        return [f"{self.repeated} of {self.images} images are the library's own: give others that the model made."]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def identify(
    denoiser: Denoiser,
    library: Sequence[Signatures],
    latents: Tensor | None = None,
    *,
    alpha: float = ALPHA,
    svm: bool = False,
    probes: int = 2,
    progress: Progress | None = None,
) -> Identification:
    """Tells which model of a library a denoiser is.

    Without latents, the denoiser is asked about latents that each entry brings, so that it can be compared with what
    that entry answered about the same: for the same model nothing but rounding is left. It is unknown if the distance
    is more than 0.1 % of how far the library's own images lie from their models: half precision stays below that, a
    small LoRA does not.

    With latents of images that the denoiser made, as in the paper, their signatures are compared with each entry's
    mean; it is unknown if at most a share alpha of the library's own images lie that far from their model.

    Args:
        denoiser: The model in question.
        library: Signatures of known models.
        latents: (B, C, H, W) of images that the denoiser made, or None.
        alpha: Share of known models' images that may be called unknown, with latents.
        svm: Also ask a linear support vector machine (C = 0.1, the authors'); needs latents and scikit-learn.
        probes: Latents per entry, without latents.
        progress: Called with the numbers of comparisons done and of all.

    Returns:
        The likely model or "unknown", with the distances to all.

    Raises:
        InputError: A library that cannot be used, or latents that do not fit the denoiser.
        MissingPackage: scikit-learn is needed and not installed.
    """
    entries = check_library(library)
    if latents is None:
        if svm:
            raise InputError("the linear classifier needs images that the denoiser made: give latents")
        return _paired(denoiser, entries, probes, progress)
    return _by_prototypes(denoiser, entries, latents, alpha, svm, progress)


def _paired(denoiser: Denoiser, entries: list[Signatures], probes: int, progress: Progress | None) -> Identification:
    channels = denoiser.channels
    used = min([probes, *(len(entry.latents) for entry in entries)])
    if used < 1:
        raise InputError("an entry of the library brings no latents: give latents of images that the denoiser made")
    distances: dict[str, float | None] = {}
    for number, entry in enumerate(entries):
        distances[entry.name] = None
        if entry.latent_shape[0] == channels:
            measured = _signatures(denoiser, entry, entry.latents[:used])
            distances[entry.name] = float(cosine_distance(measured, entry.values[:used]).diagonal().mean())
        if progress:
            progress(number + 1, len(entries))
    spreads = [entry.spread.median() for entry in entries if len(entry.spread)]
    if not spreads:
        raise InputError("the library has one signature per model, so nothing tells what is far: measure more images")
    threshold = SAME * float(torch.stack(spreads).median())
    return _decided(entries, distances, threshold, None, paired=True, images=used)


def _by_prototypes(
    denoiser: Denoiser,
    entries: list[Signatures],
    latents: Tensor,
    alpha: float,
    svm: bool,
    progress: Progress | None,
) -> Identification:
    signatures = _signatures(denoiser, entries[0], latents)
    if progress:
        progress(1, 1)
    return identify_signatures(signatures, entries, alpha=alpha, svm=svm)


def identify_signatures(
    signatures: Tensor, library: Sequence[Signatures], *, alpha: float = ALPHA, svm: bool = False
) -> Identification:
    """Returns what `identify` returns with latents, from signatures (B, N) that were measured already.

    Raises InputError for a library that cannot be used, no signature, or NaN or infinity in one.
    """
    entries = check_library(library)
    if not len(signatures):
        raise InputError("no signature was given: give at least one")
    prototypes = torch.stack([entry.prototype for entry in entries])
    each = cosine_distance(signatures, prototypes).mean(0)
    distances: dict[str, float | None] = dict(zip((e.name for e in entries), each.tolist(), strict=True))
    spread = torch.cat([entry.spread for entry in entries]).sort().values
    threshold, p_value = float("inf"), None
    if len(spread):
        allowed = int(alpha * (len(spread) + 1)) - 1
        threshold = float(spread[len(spread) - 1 - allowed]) if allowed >= 0 else threshold
        p_value = float(conformal(spread, each.min()[None]))
    votes = svm_votes(signatures, entries) if svm else None
    count = len(signatures)
    identification = _decided(entries, distances, threshold, p_value, paired=False, images=count, votes=votes)
    return replace(identification, repeated=_repeated(signatures, entries))


def _repeated(signatures: Tensor, entries: Sequence[Signatures]) -> int:
    known = torch.cat([entry.values for entry in entries])
    return sum(bool(((known - one).abs().amax(1) < EQUAL).any()) for one in signatures.to(known))


def svm_votes(signatures: Tensor, entries: Sequence[Signatures]) -> dict[str, float]:
    """Returns the share of signatures (B, N), in [0, 1], that a linear support vector machine gives each entry.

    Raises InputError for a single entry or for NaN or infinity, MissingPackage without scikit-learn.
    """
    require_finite(signatures, "the signatures")
    if len(entries) < 2:
        raise InputError("a classifier needs at least two models to tell apart: give a larger library")
    classes, scaling = require("sklearn.svm", "bench"), require("sklearn.preprocessing", "bench")
    known = torch.cat([entry.values for entry in entries]).double().numpy()
    labels = [number for number, entry in enumerate(entries) for _ in range(entry.n)]
    scaler = scaling.StandardScaler().fit(known)
    judge = classes.SVC(kernel="linear", C=SVM_C).fit(scaler.transform(known), labels)
    decisions = judge.predict(scaler.transform(signatures.double().numpy())).tolist()
    return {entry.name: decisions.count(number) / len(decisions) for number, entry in enumerate(entries)}


def _signatures(denoiser: Denoiser, entry: Signatures, latents: Tensor) -> Tensor:
    plan, seed, compat = entry.settings
    return signature(denoiser, latents, plan=plan, seed=seed, author_compat=compat)  # type: ignore[arg-type]


def _decided(
    entries: Sequence[Signatures],
    distances: dict[str, float | None],
    threshold: float,
    p_value: float | None,
    *,
    paired: bool,
    images: int,
    votes: dict[str, float] | None = None,
) -> Identification:
    near = sorted((distance, name) for name, distance in distances.items() if distance is not None)
    margin = None
    if len(near) > 1:
        margin = 1 - near[0][0] / near[1][0] if near[1][0] > 0 else 0.0
    decision = near[0][1] if near and near[0][0] <= threshold else UNKNOWN
    alike = _alike(decision, entries, distances, threshold if paired else -1.0)
    return Identification(decision, distances, margin, p_value, threshold, paired, images, votes, alike)


def _alike(
    decision: str, entries: Sequence[Signatures], distances: dict[str, float | None], within: float
) -> tuple[str, ...]:
    """The other entries that are the decided one's model by their fingerprint, or answer alike."""
    named = next((entry for entry in entries if entry.name == decision), None)
    if named is None:
        return ()

    def same(entry: Signatures) -> bool:
        distance = distances[entry.name]
        return entry.fingerprint == named.fingerprint or (distance is not None and distance <= within)

    return tuple(entry.name for entry in entries if entry is not named and same(entry))
