"""The page of `cryptomnesia lineage`: how far a model's images are from those of each model of a pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..lineage.parentage import NONE, TARGET, UNTESTED, Parentage
from ..pages.frame import render as render_page
from ..signals.lineage import Lineage


@dataclass(frozen=True)
class LineagePage:
    """Everything on the page.

    Attributes:
        parentage: What the images say about the parent.
        examples: By prompt and by model, the target first: a few images, (H, W, 3) uint8 each.
        facts: The footer's lines (name, value).
    """

    parentage: Parentage
    examples: Mapping[str, Mapping[str, Sequence[NDArray[np.uint8]]]]
    facts: Sequence[tuple[str, str]]
    target: ClassVar = TARGET

    @property
    def widest(self) -> float:
        """The distance that a bar as long as its room stands for."""
        return 1.05 * max(*self.parentage.distances.values(), self.parentage.null_threshold or 0.0) or 1.0

    def says(self, one: Lineage) -> str:
        """Returns the parent that a single prompt names, or why it names none."""
        return (one.parent or NONE) if one.tested else UNTESTED


def render(page: LineagePage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("commands/lineage_page.html", page)
