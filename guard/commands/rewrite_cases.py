"""What came of each prompt of `cryptomnesia rewrite`, for the terminal and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..mitigation.result import Mitigation
from ..pages.images import difference
from ..pages.marks import Piece, marked
from ..report import MemorizationReport

HELD = {
    "rewrite": "On noise that it was not made with, the new prompt is clear and no longer pulls to the same image.",
    "embed": "On noise that it was not made with, the moved embedding is clear and no longer pulls to the same image.",
    "attenuate": "On fresh noise, the prompt without these tokens is clear and no longer pulls to the same image.",
    "reseed": "On noise close to the chosen one, the prompt is clear.",
}
LARGE = 160  # pixels of width
CHANGES = {"drop": "dropped", "swap": "swapped", "insert": "inserted", "attenuate": "attenuated"}


@dataclass(frozen=True)
class Pictures:
    """Images of one side, with a few words under each.

    Attributes:
        images: The images, (S, H, W, 3) uint8.
        captions: The words under each image.
        independent: Whether they start from unlike noise, so that it says something how much they differ.
    """

    images: NDArray[np.uint8]
    captions: Sequence[str]
    independent: bool = True

    @property
    def difference(self) -> float | None:
        """How much they differ from each other, where that says something; see `images.difference`."""
        return difference(self.images) if self.independent else None

    @property
    def large(self) -> bool:
        """Whether they need more room than small ones."""
        return self.images.shape[2] > LARGE

    @property
    def captioned(self) -> list[tuple[NDArray[np.uint8], str]]:
        """Each image with its caption."""
        return list(zip(self.images, self.captions, strict=True))


@dataclass(frozen=True)
class Case:
    """One prompt, with the check's report, and how it was mitigated.

    Attributes:
        report: What the check said of the prompt as given.
        mitigation: What was tried and what came of it; None if the prompt was left alone.
        before, after: Images of both sides; None where none were made.
    """

    report: MemorizationReport
    mitigation: Mitigation | None = None
    before: Pictures | None = None
    after: Pictures | None = None

    @property
    def prompt(self) -> str:
        """The prompt as given, empty where it is not known."""
        return self.report.prompt or ""

    @property
    def changed(self) -> bool:
        """Whether there is something to sample with in place of the prompt; a choice of words may not be found."""
        about = self.mitigation
        return about is not None and (about.held or about.method not in ("rewrite", "attenuate"))

    @property
    def numbers_before(self) -> tuple[float | None, float | None]:
        """The p-value and score before, on the same fresh noise as afterwards where the method is tested on that."""
        about = self.mitigation
        # a reseed is tested close to the chosen noise, which says nothing about any other
        if about is None or about.method == "reseed":
            return self.report.p_value, self.report.score
        return about.p_before, about.score_before

    @property
    def numbers_after(self) -> tuple[float | None, float | None]:
        """The p-value and score after; None if nothing was changed."""
        about = self.mitigation
        return (None, None) if about is None or not self.changed else (about.p_after, about.score_after)

    @property
    def texts(self) -> tuple[list[Piece], list[Piece]]:
        """The prompt before and after, with the words marked that were changed."""
        about = self.mitigation
        return marked(self.prompt, self.prompt if about is None or about.rewritten is None else about.rewritten)

    @property
    def outcome(self) -> tuple[str, str]:
        """What came of it: in two or three words, and in a plain sentence."""
        about = self.mitigation
        if about is None:
            return "Not changed", "The prompt is clear."
        if about.held:
            return "Mitigated", HELD[about.method]
        reason = about.reason or "it did not pass the test"
        stays = "Do not rely on what was tried." if self.changed else "The prompt stays as it was."
        return "Not mitigated", f"{reason[:1].upper()}{reason[1:]}. {stays}"
