"""What the images amount to: which pictures the model likely reproduces, after all that was tried is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..false_discovery import adjusted, rejected, share_of_nulls
from ..similarity import Comparison, ImageComparison
from ..similarity.result import COPIES
from .captions import Asked, Captions

ALPHA = 0.05
FOUND, NONE, CANNOT_TELL = "reproduced", "none found", "cannot tell"


@dataclass(frozen=True)
class Copy:
    """One image that looks like a copy of a picture.

    Attributes:
        seed: The seed that it was made of.
        picture: The place of the picture among the folder's.
        own: Whether the words were said to belong to that picture.
        comparison: How it compares; its first match is the picture.
        q_value: The smallest false discovery rate at which it stands, over all images; None where there is none.
        stands: Whether it is among those that stand at the rate asked for, of words that are likely memorized by the
            check: words that name a simple thing bring about likeness by themselves.
    """

    seed: int
    picture: int
    own: bool
    comparison: ImageComparison
    q_value: float | None = None
    stands: bool = False

    @property
    def kind(self) -> str:
        """ "same picture" or "same part"."""
        return self.comparison.kind

    @property
    def p_value(self) -> float | None:
        """How likely an unrelated image would be so alike to any picture of the folder; None where nobody can say."""
        return self.comparison.p_value

    @property
    def share(self) -> float | None:
        """The share of the image, in [0, 1], that is the picture's; None where that is not known."""
        return self.comparison.nearest[0].share


@dataclass(frozen=True)
class Evidence:
    """What is known of one prompt.

    Attributes:
        asked: The words.
        check: Score, p-value, verdict and reason of the check.
        seeds: The seeds of the images that were made; none where the check gave no reason to.
        copies: Those of the images that are likely copies, the surest first.
    """

    asked: Asked
    check: Mapping[str, Any]
    seeds: tuple[int, ...] = ()
    copies: tuple[Copy, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether one of its images at least stands."""
        return any(copy.stands for copy in self.copies)

    @property
    def vague(self) -> bool:
        """Whether it has likely copies, and none that stands."""
        return bool(self.copies) and not self.stands


@dataclass(frozen=True)
class Extraction:
    """Which pictures of a folder a model likely reproduces.

    Attributes:
        captions: The pictures and the words.
        evidence: By prompt; those that stand come first, the surest first.
        alpha: The false discovery rate of the images that stand.
        suspicion: Images were made where the check's p-value was at most this.
        rejected: Pictures that could not be read, with the reason.
        facts: What it rests on: model, calibration, settings; pairs of words.
    """

    captions: Captions
    evidence: tuple[Evidence, ...]
    alpha: float
    suspicion: float
    rejected: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def standing(self) -> list[Evidence]:
        """The prompts that stand."""
        return [one for one in self.evidence if one.stands]

    @property
    def suspicious(self) -> list[Evidence]:
        """The prompts that images were made of."""
        return [one for one in self.evidence if one.seeds]

    @property
    def images(self) -> int:
        """The number of images that were made."""
        return sum(len(one.seeds) for one in self.evidence)

    @property
    def reproduced(self) -> list[int]:
        """The places of the pictures that prompts which stand reproduce."""
        return sorted({copy.picture for one in self.standing for copy in one.copies if copy.stands})

    @property
    def vague(self) -> list[Evidence]:
        """Prompts with likely copies of which none stands: the folder holds too few pictures to tell, or the check does
        not call the words memorized, so that they may simply name what the picture shows."""
        return [one for one in self.evidence if one.vague]

    @property
    def verdict(self) -> str:
        """FOUND, NONE or CANNOT_TELL: nothing could be asked, or what was found does not stand."""
        if self.standing:
            return FOUND
        return CANNOT_TELL if not self.evidence or self.vague else NONE

    def headline(self) -> str:
        """Returns the answer in one sentence."""
        total = len(self.captions.pictures)
        if self.verdict == FOUND:
            count = len(self.reproduced)
            return f"The model likely reproduces {count} of {total} {_pictures(total)}."
        if not self.evidence:
            return f"Nothing could be asked: none of {total} {_pictures(total)} comes with words."
        if self.vague:
            count = len(self.vague)
            return f"{count} of {len(self.evidence)} prompts gave images that look like copies, but none that stands."
        return f"No reproduction of {total} {_pictures(total)} was found by the words that were tried."

    def untried(self) -> list[str]:
        """Returns what was not tried, a sentence each, so that nobody takes silence for an answer."""
        lines = []
        if missing := len(self.captions.uncaptioned):
            own = "the words given for all are their only try" if self.evidence else "nothing was asked for them"
            lines.append(f"{missing} of {len(self.captions.pictures)} pictures have no words of their own: {own}.")
        if quiet := len(self.evidence) - len(self.suspicious):
            lines.append(
                f"{quiet} of {len(self.evidence)} prompts gave no reason to make images (check's p-value above "
                f"{self.suspicion:g}): a model may hold pictures that their words do not bring up."
            )
        lines.append(
            "Other wordings, other seeds, image prompts and fine-tunes were not tried: what was not found may be there."
        )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; seeds are texts."""
        return {
            "schema": "cryptomnesia/extraction/1",
            "verdict": self.verdict,
            "headline": self.headline(),
            "alpha": self.alpha,
            "suspicion": self.suspicion,
            "pictures": len(self.captions.pictures),
            "without_words": len(self.captions.uncaptioned),
            "prompts": len(self.evidence),
            "suspicious": len(self.suspicious),
            "images": self.images,
            "stand": len(self.standing),
            "reproduced": [self.captions.name(place) for place in self.reproduced],
            "evidence": [self._one(one) for one in self.evidence],
            "untried": self.untried(),
            "rejected": dict(self.rejected),
            "notes": list(self.captions.notes),
            "facts": dict(self.facts),
        }

    def _one(self, one: Evidence) -> dict[str, Any]:
        return {
            "prompt": one.asked.prompt,
            "source": one.asked.source,
            "pictures": [self.captions.name(place) for place in one.asked.pictures],
            "check": dict(one.check),
            "seeds": [str(seed) for seed in one.seeds],
            "stands": one.stands,
            "copies": [
                {
                    "seed": str(copy.seed),
                    "picture": self.captions.name(copy.picture),
                    "own": copy.own,
                    "kind": copy.kind,
                    "p_value": copy.p_value,
                    "q_value": copy.q_value,
                    "stands": copy.stands,
                    "similarity": copy.comparison.nearest[0].similarity,
                    "share": copy.share,
                }
                for copy in one.copies
            ],
        }


def weigh(
    captions: Captions,
    checked: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Sequence[int]],
    compared: Comparison | None,
    alpha: float,
) -> tuple[Evidence, ...]:
    """Returns what is known of each prompt, those that stand first.

    Over all images that were made, Benjamini and Hochberg's correction with Storey's estimate of how many are
    unrelated. Which prompts were made rests on the check alone, not on the comparison, so that it favours nothing. What
    is unrelated is learned from the pictures, which show different things; so a copy stands only where the check calls
    its words memorized, too.

    Args:
        captions: The pictures and words.
        checked: By prompt, what the check said.
        made: By prompt, the seeds of its images.
        compared: The images against the pictures, in the order of `made` and its seeds; None without images.
        alpha: The false discovery rate.
    """
    places = {picture.resolve(): place for place, picture in enumerate(captions.pictures)}
    images = () if compared is None else compared.images
    p_values = np.array([np.nan if one.p_value is None else one.p_value for one in images])
    values = adjusted(p_values) * share_of_nulls(p_values[~np.isnan(p_values)])
    judged = zip(images, values, rejected(values, alpha), strict=True)
    found = []
    for asked in captions.asked:
        seeds, copies = tuple(made.get(asked.prompt, ())), []
        for seed in seeds:
            one, value, stands = next(judged)
            if one.kind in COPIES:
                picture = places[Path(one.nearest[0].reference).resolve()]
                known = None if np.isnan(value) else float(value)
                sure = bool(stands) and checked[asked.prompt]["verdict"] == "memorized"
                copies.append(Copy(seed, picture, picture in asked.pictures, one, known, sure))
        copies.sort(key=lambda copy: (not copy.stands, copy.p_value or 1, -copy.comparison.nearest[0].similarity))
        found.append(Evidence(asked, checked[asked.prompt], seeds, tuple(copies)))
    return tuple(sorted(found, key=_rank))


def _rank(one: Evidence) -> tuple[bool, bool, float]:
    p_value = one.check["p_value"]
    return not one.stands, not one.copies, 1.0 if p_value is None else p_value


def _pictures(count: int) -> str:
    return "picture" if count == 1 else "pictures"
