"""What a comparison of images with references amounts to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from ..printable import printable

SAME, PART, SIMILAR, NONE = "same picture", "same part", "similar", "none"
COPIES = (SAME, PART)
TOLD = 8  # local features that agree; fewer may do by accident
PROMISE = (
    "p is the share of unrelated pictures that would find so near a reference in this folder, if they were related to "
    "it as its own pictures are to each other; the whole folder was searched. Each reference was held against the "
    "others for it, variants of one picture left out."
)


@dataclass(frozen=True)
class Match:
    """A reference beside an image.

    Attributes:
        reference: Its path, or "image 3" for one that was given as such.
        kind: "same picture", "same part", "similar", or "none".
        p_value: Against unrelated references, corrected for having searched all of them, in (0, 1]; small = a copy.
            None with a single reference.
        similarity: Correlation where both are alike, in [-1, 1]; 1 = equal.
        flipped: Whether the image is alike when flipped left to right.
        identical: Whether both are equal, pixel by pixel.
        matches: How many local features agree on one movement; 0 where they were not looked at.
        cosine: Of both pictures' vectors by the encoder, in [-1, 1]; None without one.
        size: (height, width) of the image.
    """

    reference: str
    kind: str
    p_value: float | None
    similarity: float
    flipped: bool
    identical: bool
    matches: int
    cosine: float | None
    size: tuple[int, int]
    _mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    _item: Any = field(default=None, repr=False, compare=False)

    @property
    def region(self) -> NDArray[np.bool_] | None:
        """Where the image is like the reference, (H, W) bool over the image; None unless it is a copy."""
        if self._mask is None:
            return None
        pillow = require("PIL.Image", "provenance")
        height, width = self.size
        mask = pillow.fromarray(self._mask.astype(np.uint8) * 255).resize((width, height), pillow.Resampling.BILINEAR)
        return np.asarray(mask) > 127

    @property
    def share(self) -> float | None:
        """The share of the image that is like the reference, in [0, 1]; None unless it is a copy."""
        return None if self._mask is None else float(self._mask.mean())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, without the region's pixels."""
        return {
            "reference": self.reference,
            "kind": self.kind,
            "p_value": self.p_value,
            "similarity": self.similarity,
            "flipped": self.flipped,
            "identical": self.identical,
            "matches": self.matches,
            "cosine": self.cosine,
            "share": self.share,
        }


@dataclass(frozen=True)
class ImageComparison:
    """What the references say about one image.

    Attributes:
        name: Its path, or "image 3".
        kind: The nearest reference's: "same picture", "same part", "similar", or "none".
        p_value: The nearest reference's; None with a single reference.
        nearest: The nearest references, at most five, the best first.
        reason: Why there is no verdict, or None.
        itself: Whether the image's own file is one of the references.
        repeats: The name of an earlier image with the same pixels, or None.
        references: How many references were searched.
        digest: SHA-256 of the image's pixels and size.
        alpha: Share of unrelated images that may be called copies.
    """

    name: str
    kind: str
    p_value: float | None
    nearest: tuple[Match, ...]
    reason: str | None
    itself: bool
    repeats: str | None
    references: int
    digest: str
    alpha: float
    _item: Any = field(default=None, repr=False, compare=False)

    @property
    def copy(self) -> bool:
        """Whether it is called a copy of a reference, or of a part of one."""
        return self.kind in COPIES

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        if self.kind == NONE:
            return "No verdict" if self.reason else "No copy found"
        match = self.nearest[0]
        how = " flipped" if match.flipped else ""
        what = {SAME: "The same picture as", PART: "A part is the same as in", SIMILAR: "Similar to"}[self.kind]
        return f"{what} {printable(Path(match.reference).name, 80)}{',' + how if how else ''}"

    def notes(self) -> list[str]:
        """Returns sentences on what that rests on."""
        notes = [] if self.reason is None else [f"{self.reason[0].upper()}{self.reason[1:]}."]
        if self.itself:
            notes.append("The image itself is one of the references: the same file.")
        if self.repeats is not None:
            notes.append(f"The same pixels as {printable(Path(self.repeats).name, 80)}, earlier among the images.")
        if not self.nearest:
            return notes
        match = self.nearest[0]
        if match.identical:
            notes.append("Equal pixel by pixel.")
        elif self.copy and (self.p_value is None or self.p_value > self.alpha):
            notes.append(
                "Plainly a copy, by fixed limits that unlike pictures do not meet; with so few references no p-value "
                "says it."
            )
        if match.share is not None and not match.identical:
            notes.append(
                f"{100 * match.share:.0f} % of the image is alike, with a correlation of {match.similarity:.2f}."
            )
        if match.matches >= TOLD and match.kind in COPIES and not match.identical:
            notes.append(f"{match.matches} local features agree on how it lies in the reference.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, and for a sidecar's findings, where of files only names are told."""
        first = self.nearest[0] if self.nearest else None
        return {
            "kind": "comparison",
            "name": self.name,
            "decision": self.kind,
            "p_value": self.p_value,
            "alpha": self.alpha,
            "references": self.references,
            "nearest": None if first is None else Path(first.reference).name,
            "similarity": None if first is None else first.similarity,
            "flipped": first is not None and first.flipped,
            "share": None if first is None else first.share,
            "matches": [match.to_dict() for match in self.nearest],
            "reason": self.reason,
            "itself": self.itself,
            "repeats": self.repeats,
            "sha256_pixels": self.digest,
        }

    def plot(self, width: int = 760) -> Any:
        """Returns a Pillow image: the image beside its nearest reference, what is alike outlined.

        Raises InputError where one of the files is not there any more.
        """
        from .plots import comparison_plot

        return comparison_plot(self, width=width)


@dataclass(frozen=True)
class Comparison:
    """What a comparison of images with references amounts to.

    Attributes:
        images: One for each image that could be read, in order.
        rejected: Why others could not be read, by name.
        references: How many references were searched.
        reference_rejected: Why others could not be read, by name.
        duplicates: Groups of references that are the same picture, pixel by pixel.
        unrelated: How many references were held against the others, for p-values.
        alpha: Share of unrelated images that may be called copies.
        parts: Whether parts, crops and rotations could be looked for.
        encoder: The name of the encoder, or None.
        identity: A digest of the references and of how they were measured.
    """

    images: tuple[ImageComparison, ...]
    rejected: dict[str, str]
    references: int
    reference_rejected: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    unrelated: int
    alpha: float
    parts: bool
    encoder: str | None
    identity: str

    @property
    def copies(self) -> tuple[ImageComparison, ...]:
        """The images that are called copies."""
        return tuple(image for image in self.images if image.copy)

    @property
    def verdict(self) -> str:
        """ "copies" if any was found, else "no verdict" if of some image nothing can be said, else "none"."""
        if self.copies:
            return "copies"
        return "no verdict" if not self.images or any(image.reason for image in self.images) else "none"

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        of = f"{len(self.images)} image{'s' if len(self.images) != 1 else ''}"
        if self.verdict == "no verdict":
            return f"No verdict on {of}"
        found = len(self.copies)
        if not found:
            return f"No copy found in {of}"
        return f"{found} of {of} {'is a copy' if found == 1 else 'are copies'}"

    def notes(self) -> list[str]:
        """Returns sentences on what the outcome rests on, and on what it does not say."""
        from . import local

        notes = [self._about_p(), *self._about_input()]
        if not self.parts:
            notes.append(f"{local.missing()}." if not local.available() else "Parts were not looked for, as asked.")
        notes.append(
            "A likeness, no proof of copying: two pictures of one thing can be alike, and what they have in common may "
            "come from a third."
        )
        return notes

    def _about_p(self) -> str:
        found = f"{self.references} reference{'s' if self.references != 1 else ''} searched"
        if not self.unrelated:
            return f"{found}: with one alone no p-value can be stated; only what is plainly a copy is called one."
        if 1 / (self.unrelated + 1) > self.alpha:
            needed = round(1 / self.alpha) - 1
            return (
                f"{found}: too few for a p-value of {self.alpha:g} (that takes {needed}), so only what is plainly a "
                "copy is called one, and of the others nothing is said."
            )
        return f"{found}, alpha {self.alpha:g}. {PROMISE}"

    def _about_input(self) -> list[str]:
        notes = []
        itself = sum(image.itself for image in self.images)
        if itself:
            every = "all" if itself == len(self.images) else f"{itself} of the"
            notes.append(
                f"{every.capitalize()} {len(self.images)} images are files of the references themselves: give other "
                "images, or leave them out of the references."
            )
        repeats = sum(image.repeats is not None for image in self.images)
        if repeats:
            notes.append(f"{repeats} of the images repeat the pixels of an earlier one.")
        if self.duplicates:
            example = " and ".join(printable(Path(name).name, 60) for name in self.duplicates[0][:2])
            notes.append(
                f"{len(self.duplicates)} pictures are among the references several times, e.g. {example}; each counts "
                "as one among unrelated ones."
            )
        for what, rejected in (("images", self.rejected), ("references", self.reference_rejected)):
            if rejected:
                notes.append(f"{len(rejected)} of the {what} could not be read, e.g. {next(iter(rejected.values()))}.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "schema": "cryptomnesia/comparison/1",
            "verdict": self.verdict,
            "copies": len(self.copies),
            "images": [image.to_dict() for image in self.images],
            "rejected": self.rejected,
            "references": self.references,
            "reference_rejected": self.reference_rejected,
            "duplicates": [list(group) for group in self.duplicates],
            "unrelated": self.unrelated,
            "alpha": self.alpha,
            "parts": self.parts,
            "encoder": self.encoder,
            "identity": self.identity,
            "notes": self.notes(),
        }

    def plot(self, width: int = 760) -> Any:
        """Returns a Pillow image: the copies below each other, at most eight; without any the nearest."""
        from .plots import overview_plot

        return overview_plot(self, width=width)


def shown_first(images: Sequence[ImageComparison]) -> list[ImageComparison]:
    """Returns images as people want them: copies first, and those with the smallest p-values."""
    order = {SAME: 0, PART: 1, SIMILAR: 2, NONE: 3}
    return sorted(images, key=lambda one: (order[one.kind], 1.0 if one.p_value is None else one.p_value))
