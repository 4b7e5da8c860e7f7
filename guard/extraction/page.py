"""The page of an extraction: for the artist, and for whom it is handed to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pages.frame import render as render_page
from .evidence import Copy, Evidence, Extraction

SIDE, WIDE = 320, 960  # pixels: of a picture's longer side, and of a row of pictures
LISTED = 200  # prompts in the table


@dataclass(frozen=True)
class Exhibit:
    """One prompt that stands, with pictures.

    Attributes:
        evidence: What is known of it.
        copy: Its surest copy.
        file: The name of the image's file among those handed on.
        image, original, beside: Pillow images: what was made, the picture, and both with the part that is the same.
        overlay: The map of where the model reproduces, a Pillow image, or None.
    """

    evidence: Evidence
    copy: Copy
    file: str
    image: Any
    original: Any
    beside: Any
    overlay: Any

    @property
    def panels(self) -> list[tuple[str, Any]]:
        """The wide pictures with what they show."""
        panels = [("made by the model, beside the picture; outlined: the same in both", _small(self.beside, WIDE))]
        if self.overlay is not None:
            panels.append(("where the model reproduces, by itself", _small(self.overlay, WIDE)))
        return panels

    @property
    def p_value(self) -> float | None:
        """The copy's own p-value."""
        return self.copy.p_value

    @property
    def pair(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """The image and the picture."""
        return [
            (f"made by the model, seed {self.copy.seed}", np.asarray(_small(self.image, SIDE))),
            ("the picture", np.asarray(_small(self.original, SIDE))),
        ]


@dataclass(frozen=True)
class ExtractionPage:
    """Everything on the page.

    Attributes:
        found: What was found.
        model: The model's name.
        exhibits: The prompts that stand, with pictures.
        signed: Whether the bundle is signed.
    """

    found: Extraction
    model: str
    exhibits: Sequence[Exhibit]
    signed: bool

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """The footer's lines (name, value)."""
        return self.found.facts

    @property
    def listed(self) -> Sequence[Evidence]:
        """The prompts in the table: those that stand, then the most suspicious."""
        return self.found.evidence[:LISTED]

    def name(self, place: int) -> str:
        """Returns what a picture is called."""
        return self.found.captions.name(place)


def render(found: Extraction, model: str, exhibits: Sequence[Exhibit], *, signed: bool) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("extraction/page.html", ExtractionPage(found, model, exhibits, signed))


def _small(picture: Any, side: int) -> Any:
    """A picture as RGB, no side longer than that, as a Pillow image."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    return small
