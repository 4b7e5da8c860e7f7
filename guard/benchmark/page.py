"""The page of `cryptomnesia benchmark`: what is told, at what cost, and what was missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..calibration import Calibration
from ..pages.frame import render as render_page
from ..pages.ridges import Ridges, Scored, chart
from .evaluation import ALL, REPRODUCED, Evaluation, Group, Prompt
from .forest import Forest, forest
from .lists import FEW, KNOWN_KINDS
from .methods import METHODS
from .reproduction import LIMIT, Reproduction

SHOWN = 12  # prompts with images, and prompts that were missed or flagged


@dataclass(frozen=True)
class Cost:
    """What the measurements took.

    Attributes:
        forward_rows: Rows of the network.
        images: As how many images of 50 steps these are.
        seconds: The time, with encoding.
        prompts: How many prompts were measured.
    """

    forward_rows: int
    images: float
    seconds: float
    prompts: int

    @property
    def each(self) -> str:
        """The time of one prompt, in words."""
        each = self.seconds / self.prompts
        return f"{1000 * each:.0f} ms" if each < 1 else f"{each:.1f} s"


@dataclass(frozen=True)
class Exhibit:
    """A memorized prompt with small images of its seeds (S, H, W, 3) uint8, and its reference (H, W, 3) or None."""

    text: str
    memorized: bool
    about: Reproduction
    images: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None


@dataclass(frozen=True)
class KindMade:
    """How many prompts of a kind are reproduced, and how many of all have a reference."""

    name: str
    prompts: int
    reproduced: int
    referenced: int


@dataclass(frozen=True)
class Generated:
    """Whether memorized prompts are reproduced.

    Attributes:
        seeds: The seeds of each prompt's images.
        settings: How they were made, in one line.
        kinds: What became of each kind.
        exhibits: Prompts with their images.
    """

    seeds: Sequence[int]
    settings: str
    kinds: Sequence[KindMade]
    exhibits: Sequence[Exhibit]


@dataclass(frozen=True)
class BenchmarkPage:
    """Everything on the page.

    Attributes:
        model: The model's name.
        evaluation: What the measurements say.
        calibration: What gave the verdicts.
        calibrated_on: Which prompts it was made of, in words.
        cost: What the measurements took.
        notes: What is to be said of the lists.
        generated: Whether memorized prompts are reproduced; None where no images were made.
        facts: The footer's lines (name, value).
    """

    model: str
    evaluation: Evaluation
    calibration: Calibration
    calibrated_on: str
    cost: Cost
    notes: Sequence[str]
    generated: Generated | None
    facts: Sequence[tuple[str, str]]
    methods: ClassVar = METHODS
    shown: ClassVar = SHOWN
    near: ClassVar = LIMIT
    few: ClassVar = FEW

    @property
    def alpha(self) -> float:
        """The promised false-alarm rate."""
        return self.calibration.alpha

    @property
    def scores(self) -> Ridges:
        """The scores of all groups above those of the calibration."""
        scores = np.array([prompt.score for prompt in self.evaluation.prompts])
        groups = [
            Scored(group.name, f"{group.flagged:,} of {group.prompts:,} flagged", scores[group.rows])
            for group in self.evaluation.groups
        ]
        benign = Scored("benign prompts", f"{self.calibration.n:,}, for calibration", np.array(self.calibration.scores))
        return chart(groups, benign, self.calibration.threshold, self.alpha)

    @property
    def forests(self) -> list[Forest]:
        """The rates of all methods, a chart per group of positives."""
        found, sizes = self.evaluation, {group.name: group.prompts for group in self.evaluation.negatives}
        return [
            forest(positive, [pair for pair in found.pairs if pair.memorized == positive.name], sizes)
            for positive in found.positives
        ]

    @property
    def kinds(self) -> list[Group]:
        """The memorized prompts by kind, as the list has it."""
        return [group for group in self.evaluation.positives if REPRODUCED not in group.name and group.name != ALL]

    @property
    def few_negatives(self) -> list[Group]:
        """Lists so short that no single one of their prompts may be flagged at 1 % false positives."""
        return [group for group in self.evaluation.negatives if group.prompts < 100]

    @property
    def missed(self) -> list[Prompt]:
        """Memorized prompts that are not flagged, the likeliest memorized first."""
        return self._of(self.kinds, flagged=False)

    @property
    def false_alarms(self) -> list[Prompt]:
        """Other prompts that are flagged, the highest scores first."""
        return self._of(self.evaluation.negatives, flagged=True)

    @property
    def reads_kinds(self) -> list[tuple[str, str]]:
        """What known names of kinds stand for."""
        names = [group.name for group in self.evaluation.positives]
        return [(kind, words) for kind, words in KNOWN_KINDS.items() if kind in names]

    def _of(self, groups: Sequence[Group], *, flagged: bool) -> list[Prompt]:
        rows = {row for group in groups for row in group.rows}
        chosen = [self.evaluation.prompts[row] for row in rows if self.evaluation.prompts[row].memorized == flagged]
        return sorted(chosen, key=lambda prompt: -prompt.score)


def render(page: BenchmarkPage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("benchmark/page.html", page)
