"""What can be said of a single image: weak evidence, whatever the number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..denoiser import Denoiser
from ..errors import InputError
from ..finite import require_finite
from ..progress import Progress
from .measure import Measured, measure
from .result import FEWEST
from .settings import Settings
from .store import Store

WORDS = "weak evidence"


@dataclass(frozen=True)
class ImageEvidence:
    """What one image looks like, compared with images of which is known whether they were trained on.

    Attributes:
        image: The image's name.
        statistic: The image's number; smaller = more member-like.
        p_value: Share of references that look at least as much trained on: (1 + count) / (1 + references).
        likelihood_ratio: How much likelier such a number is among images that were trained on than among references;
            within what the numbers of images support. None without images that were trained on.
        references, members: Numbers of images it was compared with.
        strength: Always "weak evidence": published methods are hardly better than chance on single images of
            pretrained models.
    """

    image: str
    statistic: float
    p_value: float
    likelihood_ratio: float | None
    references: int
    members: int
    strength: str = WORDS

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        if self.likelihood_ratio is None:
            return f"Weak evidence: p = {self.p_value:.2g}"
        return f"Weak evidence: likelihood ratio {self.likelihood_ratio:.2g} for training on this image"

    def notes(self) -> list[str]:
        """Returns sentences on what the evidence rests on, and on what it does not say."""
        sentences = [f"{100 * self.p_value:.0f} % of {self.references} references look at least as much trained on."]
        if self.likelihood_ratio is None:
            sentences.append("Without images that were surely trained on there is no likelihood ratio.")
        else:
            sentences.append(f"Compared with {self.members} images that were trained on; 1 says nothing either way.")
        return [*sentences, "A single image is weak evidence at best: test a folder of 70 or more."]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "kind": "image membership",
            "image": self.image,
            "strength": self.strength,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "likelihood_ratio": self.likelihood_ratio,
            "references": self.references,
            "members": self.members,
        }


def image_evidence(
    denoiser: Denoiser,
    image: Any,
    references: Any,
    members: Any = None,
    *,
    prompt: str | None = None,
    reference_prompts: Sequence[str] | bool | None = None,
    member_prompts: Sequence[str] | bool | None = None,
    settings: Settings | None = None,
    size: tuple[int, int] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> ImageEvidence:
    """Measures one image as weak evidence on whether a model was trained on it.

    Args:
        denoiser: The model, or a pipeline.
        image: A file, Pillow image, array or tensor; see `read_picture`.
        references: A folder or list of at least 10 images of the same kind that were not trained on.
        members: A folder or list of at least 10 that were trained on; without them there is a p-value only.
        prompt, reference_prompts, member_prompts: The images' prompts; for all of them, or for none.
        settings, size, store, progress: The arguments of `membership_test`.

    Returns:
        The image's number beside those of the others.

    Raises:
        InputError: An unusable image, too few others, prompts for some only.
        NotApplicable: The model reads no images, or no prompts.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
    """
    from ..adapters import to_denoiser

    sides = [reference_prompts, *([] if members is None else [member_prompts])]
    if any(bool(side) != (prompt is not None) for side in sides):
        raise InputError("prompts were given for some of the images only: give all, or none")
    model = to_denoiser(denoiser)
    watch = {"settings": settings, "size": size, "store": store, "progress": progress}
    one = measure(model, [image], None if prompt is None else [prompt], **watch)  # type: ignore[arg-type]
    if not len(one):
        raise InputError(next(iter(one.skipped.values())))
    others = measure(model, references, reference_prompts, **watch)  # type: ignore[arg-type]
    known = None if members is None else measure(model, members, member_prompts, **watch)  # type: ignore[arg-type]
    return judge(one, others, known)


def judge(image: Measured, references: Measured, members: Measured | None = None) -> ImageEvidence:
    """Compares one measured image with others that were measured alike, and returns the evidence.

    Raises InputError for too few others, the image itself among them, or numbers that are not finite.
    """
    require_finite(image.statistic, "the statistics of the image")
    for name, group in (("references", references), ("images that were trained on", members)):
        if group is not None and len(group) < FEWEST:
            raise InputError(f"there are {len(group)} {name}, and less than {FEWEST} say nothing: give 70 or more")
        if group is not None and image.digests[0] in group.digests:
            raise InputError(f"{image.names[0]} is among the {name}: take it out")
        if group is not None:
            require_finite(group.statistic, f"the statistics of the {name}")
    value = float(image.statistic[0])
    return ImageEvidence(
        image=image.names[0],
        statistic=value,
        p_value=(1 + int((references.statistic <= value).sum())) / (1 + len(references)),
        likelihood_ratio=None if members is None else _ratio(value, members.statistic, references.statistic),
        references=len(references),
        members=0 if members is None else len(members),
    )


def _ratio(value: float, members: np.ndarray, references: np.ndarray) -> float:
    """The likelihood ratio of two Gaussians with one spread, which rises steadily towards members.

    It is 1 where members lie on the wrong side of references.
    Bounded by the smaller number of images: no more can be learned from so few.
    """
    low, high = float(members.mean()), float(references.mean())
    if low >= high:
        return 1.0
    count = len(members) + len(references)
    variance = (len(members) * members.var() + len(references) * references.var()) / (count - 2)
    most = math.log(min(len(members), len(references)))
    evidence = (high - low) * ((high + low) / 2 - value) / max(float(variance), 1e-12)
    return math.exp(min(most, max(-most, evidence)))
