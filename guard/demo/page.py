"""The page of `cryptomnesia demo`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..pages.frame import render as render_page
from ..pages.strip import Lane, Marker, Strip, chart
from ..pages.wording import badge
from ..report import MemorizationReport

MISSED = "✗ missed: called clear, yet its image returned"


@dataclass(frozen=True)
class Card:
    """One prompt: its report, what training did with it, what came out, and the closest training image.

    Attributes:
        group: Key of the group it belongs to.
        kind: What training did with it, in words.
        images: What the model made, (S, H, W, 3) uint8.
        distances: The distance of each to its closest training image, root mean square in [0, 1].
        closest: The training image closest to any of them, (H, W, 4) uint8; transparent where it varied.
        closest_caption: The caption it was trained with.
        missed: Whether it was called clear although the one image that it was fed in training returned.
    """

    report: MemorizationReport
    group: str
    kind: str
    images: NDArray[np.uint8]
    distances: Sequence[float]
    closest: NDArray[np.uint8]
    closest_caption: str
    missed: bool = False

    @property
    def badge(self) -> str:
        """The verdict in words, or that it was wrong."""
        return MISSED if self.missed else badge(self.report.verdict)

    @property
    def pictures(self) -> list[tuple[NDArray[np.uint8], float]]:
        """Each image with its distance."""
        return list(zip(self.images, self.distances, strict=True))


@dataclass(frozen=True)
class Group:
    """Prompts that belong together.

    Attributes:
        key: The group's name in the stored report.
        title: The heading.
        about: A sentence about the prompts.
        lane: The label of the chart's lane.
        memorized: Whether their training images are expected to return.
    """

    key: str
    title: str
    about: str
    lane: str
    memorized: bool


@dataclass(frozen=True)
class DemoPage:
    """Everything on the page; `facts` are the footer's lines (name, value)."""

    groups: Sequence[Group]
    cards: Sequence[Card]
    benign: Sequence[float]
    threshold: float
    alpha: float
    gallery_size: int
    scoring_seconds: float
    sampling_seconds: float
    facts: Sequence[tuple[str, str]]

    def flags(self, memorized: bool) -> list[bool]:
        """Returns for each prompt of the memorized groups, or of the others, whether it is flagged."""
        groups = {group.key for group in self.groups if group.memorized == memorized}
        return [card.report.memorized for card in self.cards if card.group in groups]

    @property
    def chart(self) -> Strip:
        """The scores of all prompts that have one, a lane for each group."""
        lanes = [
            Lane(
                group.lane,
                [
                    Marker(number, card.report.score, card.report.prompt or "", card.report.memorized)
                    for number, card in enumerate(self.cards, 1)
                    if card.group == group.key and card.report.score is not None
                ],
            )
            for group in self.groups
        ]
        return chart(self.benign, lanes, self.threshold, self.alpha)


def render(page: DemoPage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("demo/page.html", page)
