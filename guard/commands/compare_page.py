"""The page of `cryptomnesia compare`: each image beside the reference that it is like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CryptomnesiaError
from ..pages.frame import render as render_page
from ..similarity.plots import panels
from ..similarity.result import NONE, PROMISE, SIMILAR, Comparison, ImageComparison, shown_first

SIDE = 420  # pixels of a picture
MOST_SHOWN = 60  # images with pictures
MOST_ROWS = 1000  # images that are named


@dataclass(frozen=True)
class Shown:
    """An image on the page.

    Attributes:
        image: What was found.
        mine, theirs: Pictures of it and of its nearest reference, or None where they are not there.
    """

    image: ImageComparison
    mine: Any
    theirs: Any

    @property
    def name(self) -> str:
        """The image's file name."""
        return Path(self.image.name).name

    @property
    def reference(self) -> str | None:
        """The reference's file name."""
        return Path(self.image.nearest[0].reference).name if self.image.nearest else None

    @property
    def flipped(self) -> bool:
        """Whether the reference is shown flipped, as the image is."""
        return bool(self.image.nearest) and self.image.nearest[0].flipped

    @property
    def look(self) -> str:
        """How the page shows the outcome."""
        return "copy" if self.image.copy else "similar" if self.image.kind == SIMILAR else "plain"


@dataclass(frozen=True)
class ComparePage:
    """Everything on the page.

    Attributes:
        answer: What was found.
        shown: Images with pictures: the copies, then the similar ones, and a few that are neither.
        rows: Images without, as far as they are named.
        more: How many there are besides.
        facts: The footer's lines (name, value).
    """

    answer: Comparison
    shown: Sequence[Shown]
    rows: Sequence[ImageComparison]
    more: int
    facts: Sequence[tuple[str, str]]

    promise = PROMISE

    @staticmethod
    def of(answer: Comparison, facts: Sequence[tuple[str, str]]) -> "ComparePage":
        """Returns the page of an answer; images are read again for their pictures."""
        images = shown_first(answer.images)
        alike = [image for image in images if image.kind != NONE]
        chosen = (alike or images[:4])[:MOST_SHOWN]
        others = [image for image in images if not any(image is one for one in chosen)]
        return ComparePage(answer, [_shown(one) for one in chosen], others[:MOST_ROWS], len(others[MOST_ROWS:]), facts)

    @property
    def similar(self) -> int:
        """How many images are similar to a reference, but no copies by what can be told."""
        return sum(image.kind == SIMILAR for image in self.answer.images)

    def file_name(self, path: str) -> str:
        """Returns a path's last part."""
        return Path(path).name


def _shown(image: ImageComparison) -> Shown:
    try:
        return Shown(image, *panels(image, SIDE))
    except CryptomnesiaError:  # gone since it was read
        return Shown(image, None, None)


def render(page: ComparePage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("commands/compare_page.html", page)
