"""The page of `cryptomnesia rewrite`: prompts before and after mitigation, with what the model makes of both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..mitigation.result import Method
from ..pages.frame import render as render_page
from ..pages.strip import Lane, Marker, Strip, chart
from .rewrite_cases import CHANGES, Case


@dataclass(frozen=True)
class MitigationPage:
    """Everything on the page.

    Attributes:
        cases: The prompts, in the order in which they are shown.
        method: The method that was tried on all of them.
        benign: The calibration's scores, for the histogram.
        threshold: The score above which a prompt is called likely memorized.
        alpha: The false-alarm rate that was promised.
        guidance_limit: The guidance similarity that a held mitigation does not exceed.
        facts: The footer's lines (name, value).
    """

    cases: Sequence[Case]
    method: Method
    benign: Sequence[float]
    threshold: float
    alpha: float
    guidance_limit: float
    facts: Sequence[tuple[str, str]]
    changes: ClassVar = CHANGES

    @property
    def flagged(self) -> int:
        """Prompts that were found likely memorized."""
        return sum(case.report.memorized for case in self.cases)

    @property
    def held(self) -> list[bool]:
        """For each prompt that was to be mitigated, whether that held."""
        return [case.mitigation.held for case in self.cases if case.mitigation is not None]

    @property
    def pictured(self) -> bool:
        """Whether there are images of any prompt."""
        return any(case.before is not None or case.after is not None for case in self.cases)

    @property
    def bounded(self) -> bool:
        """Whether there is a threshold on the score."""
        return math.isfinite(self.threshold)

    @property
    def chart(self) -> Strip:
        """The scores before and after, where there are any."""
        lanes = []
        before, after = [case.numbers_before for case in self.cases], [case.numbers_after for case in self.cases]
        for name, numbers in (("Before", before), ("After", after)):
            marks = [
                Marker(number, score, case.prompt, p_value is not None and p_value <= self.alpha)
                for number, (case, (p_value, score)) in enumerate(zip(self.cases, numbers, strict=True), 1)
                if score is not None
            ]
            if marks:
                lanes.append(Lane(name, marks))
        return chart(self.benign, lanes, self.threshold, self.alpha)


def render(page: MitigationPage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("commands/rewrite_page.html", page)
