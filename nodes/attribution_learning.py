"""What candidates' own images teach, kept while ComfyUI runs: measuring them costs far more than the question."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..guard.attribution import AttributionCalibration, Candidate, calibrate_attribution
from ..guard.attribution.candidates import check_candidates
from ..guard.attribution.combination import ENOUGH
from ..guard.errors import InputError
from ..guard.progress import Progress

MOST = 32  # calibrations that are kept; each is small
_learned: dict[str, AttributionCalibration] = {}


@dataclass(frozen=True)
class KnownCandidate:
    """A candidate and images that it made.

    Attributes:
        candidate: The model with its VAE.
        images: Images that it made, arrays (H, W, C) float32 in [0, 1].
        prompts: The images' prompts, one each, or none at all.
    """

    candidate: Candidate
    images: list[np.ndarray]
    prompts: list[str]

    @cached_property
    def key(self) -> str:
        """A digest that is equal where the same would be learned."""
        about = (self.candidate.name, self.candidate.denoiser.fingerprint, self.candidate.autoencoder_key, self.prompts)
        digest = hashlib.sha256(repr(about).encode())
        for image in self.images:
            digest.update(f"{image.shape} {image.dtype}".encode() + np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()


def learned(
    known: Sequence[KnownCandidate], prompted: bool, alpha: float, progress: Progress
) -> AttributionCalibration:
    """Returns the calibration for these candidates, in this order; made only once.

    Raises:
        InputError: Two candidates of one name or of equal weights, too few images, one that is given as two
            candidates', or a candidate without prompts where they are needed.
    """
    candidates = check_candidates([one.candidate for one in known])
    silent = [one.candidate.name for one in known if not one.prompts]
    if prompted and silent:
        raise InputError(
            f"the prompts of the images by {', '.join(silent)} are not known: give them, one per line, or leave the "
            "image's prompt out"
        )
    key = repr(([one.key for one in known], prompted, alpha))
    if key not in _learned:
        images = {one.candidate.name: one.images for one in known}
        shown = None if silent else {one.candidate.name: one.prompts for one in known}
        texts = shown if prompted else None
        made = calibrate_attribution(images, candidates, prompts=texts, subjects=shown, alpha=alpha, progress=progress)
        while len(_learned) >= MOST:
            _learned.pop(next(iter(_learned)))
        _learned[key] = made
    return _learned[key]


def few(calibration: AttributionCalibration) -> str | None:
    """Returns one line where more images would tell more, else None."""
    counts = dict(zip(calibration.names, calibration.images, strict=True))
    if min(counts.values()) >= ENOUGH:
        return None
    listed = ", ".join(f"{n} by {name}" for name, n in counts.items())
    return f"Learned from few images ({listed}): {ENOUGH} of each make the answer surer."
