"""The page of `cryptomnesia verify`: for people who were sent images and want to know what to make of them."""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CryptomnesiaError
from ..images import open_image
from ..pages.frame import render as render_page
from ..sidecar import Verification
from ..version import __version__

SIDE = 256  # pixels of a preview's longer side
MOST_PREVIEWS = 200  # or the page gets too large for browsers
MEANING = {
    "vouched for": "Someone whose certificate you trust signed this image, and nothing has changed since.",
    "nobody vouches": "What the image says fits it, but nobody you trust signed it: anyone could have written it.",
    "found again": "Nothing is with the image, but a store has a record of one that looks like it.",
    "changed": "The image, its provenance or a file that belongs to it is not as it was.",
    "cannot tell": "There is no provenance, or a part of it cannot be read: that says nothing about the image.",
}


@dataclass(frozen=True)
class Shown:
    """One image on the page.

    Attributes:
        name: Its file name.
        verification: What was found.
        preview: Its picture, (H, W, 3) uint8, or None where it cannot be shown.
    """

    name: str
    verification: Verification
    preview: NDArray[np.uint8] | None

    @property
    def style(self) -> str:
        """The class that colours the verdict."""
        return {"vouched for": "clear", "changed": "memorized"}.get(self.verification.result, "other")


@dataclass(frozen=True)
class VerifyPage:
    """Everything on the page.

    Attributes:
        images: What was verified, in order.
        facts: The footer's lines (name, value).
    """

    images: Sequence[Shown]
    facts: Sequence[tuple[str, str]]

    @property
    def counts(self) -> Counter[str]:
        """How many images have each result."""
        return Counter(one.verification.result for one in self.images)

    @property
    def meaning(self) -> dict[str, str]:
        """What the results on this page mean."""
        return {result: words for result, words in MEANING.items() if self.counts[result]}


def page_of(verifications: Sequence[Verification]) -> str:
    """Returns the page as a whole HTML document, with small previews of the images."""
    shown = [
        Shown(Path(one.image).name, one, _preview(one.image) if number < MOST_PREVIEWS else None)
        for number, one in enumerate(verifications)
    ]
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = [("verified", now), ("by", f"cryptomnesia {__version__}"), ("network", "nothing was fetched")]
    return render_page("commands/verify_page.html", VerifyPage(shown, facts))


def _preview(path: str) -> NDArray[np.uint8] | None:
    try:
        picture = open_image(path)
    except CryptomnesiaError:
        return None
    if picture.mode.startswith("I"):  # 16 bits, which would be cut off at white
        levels = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return np.repeat(
            levels.astype(np.uint8)[:: max(1, levels.shape[0] // SIDE), :: max(1, levels.shape[1] // SIDE), None], 3, 2
        )
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
