"""The page of `cryptomnesia lora`: which prompts a LoRA memorizes, how far they stand out, and where in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..localization import Location
from ..lora.measuring import HALF
from ..lora.results import LoraCheck
from ..pages.frame import render as render_page
from ..pages.strip import Lane, Marker, Strip, chart
from .files import write_text

KINDS = {"memorized": "memorized", "clear": "clear"}
BADGES = {"memorized": "▲ memorized", "memorized by the base": "by the base", "unsure": "? unsure", "clear": "✓ clear"}
MARKED = 30  # prompts on the chart


@dataclass(frozen=True)
class LoraPage:
    """Everything on the page.

    Attributes:
        check: What was found.
        pictures: Images with maps of the worst prompts: the prompt, the picture (H, W, 3) uint8.
        facts: The footer's lines (name, value).
    """

    check: LoraCheck
    pictures: Sequence[tuple[str, NDArray[np.uint8]]]
    facts: Sequence[tuple[str, str]]
    words: ClassVar = BADGES

    def kind(self, finding: str) -> str:
        """Returns the style of a finding."""
        return KINDS.get(finding, "other")

    def name(self, strength: float) -> str:
        """Returns the name of a column."""
        return "base" if strength == 0 else f"at {strength:g}"

    @property
    def chart(self) -> Strip:
        """Score and half of the gain at the highest strength, of benign prompts and of the worst of these."""
        benign = [
            last + HALF * (last - base) for last, base in zip(self.check.benign[-1], self.check.benign[0], strict=True)
        ]
        allowed = math.floor(self.check.alpha * (len(benign) + 1)) - 1
        marks = [
            Marker(
                number,
                prompt.at_last.score + HALF * prompt.at_last.gain,
                prompt.text,
                prompt.finding in ("memorized", "unsure"),
            )
            for number, prompt in enumerate(self.check.ordered[:MARKED], 1)
        ]
        threshold = math.inf if allowed < 0 else sorted(benign, reverse=True)[allowed]
        return chart(benign, [Lane("Prompts,\nwith the LoRA", marks)], threshold, self.check.alpha)


def write_page(path: Path, check: LoraCheck, locations: Sequence[Location], model: str) -> None:
    """Writes the page."""
    ranks = ", ".join(map(str, check.ranks)) or "none"
    facts = [
        ("LoRA", f"{check.lora}: {check.format}, rank {ranks}"),
        ("base", model),
        ("strengths", ", ".join(f"{strength:g}" for strength in check.strengths)),
        ("noise", f"{check.draws} draws, seed {check.seed}, the same for all prompts and strengths"),
        ("compared with", check.reference),
        ("rows of the network", f"{check.forward_rows:,}"),
        ("fingerprints", ", ".join(digest[:12] for digest in check.fingerprints)),
    ]
    pictures = [(location.prompt or "", _array(location.overlay())) for location in locations]
    write_text(path, render(LoraPage(check, pictures, facts)))


def render(page: LoraPage) -> str:
    """Returns the page as a whole HTML document."""
    return render_page("commands/lora_page.html", page)


def _array(picture: Any) -> NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB"))
