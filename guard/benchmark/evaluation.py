"""From measurements to what a benchmark says: rates of every method, and verdicts against a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..calibration import Calibration
from ..signals.draws import derived_seed
from .lists import Lists
from .methods import METHODS
from .rates import ROUNDS, Estimate, Numbers, share, told_apart
from .reproduction import Reproduction

ALL = "all kinds"
REPRODUCED = "reproduced"


@dataclass(frozen=True)
class Group:
    """Prompts with one answer, and how many of them are flagged.

    Attributes:
        name: The kind, or the list.
        memorized: Whether they are positives.
        prompts: How many there are.
        flagged: How many have the verdict "memorized".
        share: The share of these; of negatives the false alarms.
        rows: Their places among all prompts.
    """

    name: str
    memorized: bool
    prompts: int
    flagged: int
    share: Estimate
    rows: list[int]


@dataclass(frozen=True)
class Rates:
    """How well one method tells one group from another: AUC, and true positive rate at 1 % false positives."""

    auc: Estimate
    tpr: Estimate


@dataclass(frozen=True)
class Pair:
    """How well a kind of memorized prompts is told from a list of others, by `Method.key`."""

    memorized: str
    negatives: str
    methods: dict[str, Rates]


@dataclass(frozen=True)
class Prompt:
    """One prompt: its text, score, p-value and verdict."""

    text: str
    score: float
    p_value: float
    memorized: bool


@dataclass(frozen=True)
class Evaluation:
    """All that is said of the prompts.

    Attributes:
        groups: The kinds of positives, then the lists of negatives.
        pairs: Every kind next to every list.
        prompts: All prompts, in the order in which they were measured.
    """

    groups: list[Group]
    pairs: list[Pair]
    prompts: list[Prompt]

    @property
    def positives(self) -> list[Group]:
        """The groups of memorized prompts."""
        return [group for group in self.groups if group.memorized]

    @property
    def negatives(self) -> list[Group]:
        """The groups of the others."""
        return [group for group in self.groups if not group.memorized]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values for JSON; prompts stand once, and groups name their places."""
        return asdict(self)


def evaluate(
    lists: Lists,
    scores: Mapping[str, Tensor],
    calibration: Calibration,
    made: Mapping[str, Reproduction] | None = None,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Evaluation:
    """Returns what the measurements say.

    Args:
        lists: The prompts.
        scores: The scores (P,) of `lists.texts`, by `Method.key`; higher = more likely memorized.
        calibration: What gives verdicts; made of other prompts.
        made: How much the images of memorized prompts are alike, by text, where images were made: those that are
            reproduced become groups of their own.
        seed: The seed of the draws behind the intervals.
        rounds: How often prompts are drawn anew for these.

    Raises:
        NonFiniteError: A score is NaN or infinite.
    """
    texts, default = lists.texts, scores["default"]
    p_values = calibration.p_of(default).tolist()
    prompts = [
        Prompt(text, score, p_value, p_value <= calibration.alpha)
        for text, score, p_value in zip(texts, default.tolist(), p_values, strict=True)
    ]
    place = {text: row for row, text in enumerate(texts)}
    groups = [
        _group(name, memorized, [place[text] for text in chosen], prompts)
        for memorized, named in ((True, _kinds(lists, made)), (False, lists.negatives))
        for name, chosen in named.items()
    ]
    numbers = {method.key: scores[method.key].numpy() for method in METHODS}
    pairs = [
        Pair(positive.name, negative.name, _rates(numbers, positive.rows, negative.rows, seed, rounds))
        for positive in groups
        if positive.memorized
        for negative in groups
        if not negative.memorized
    ]
    return Evaluation(groups, pairs, prompts)


def _kinds(lists: Lists, made: Mapping[str, Reproduction] | None) -> dict[str, list[str]]:
    """The kinds of positives; all together where there are several; and of each those reproduced, if not all are."""
    kinds = dict(lists.memorized)
    if len(kinds) > 1:
        kinds[ALL] = lists.positives
    if made is not None:
        for name, texts in list(kinds.items()):
            reproduced = [text for text in texts if text in made and made[text].reproduced]
            if reproduced and reproduced not in kinds.values():
                kinds[f"{name}, {REPRODUCED}"] = reproduced
    return kinds


def _group(name: str, memorized: bool, rows: list[int], prompts: Sequence[Prompt]) -> Group:
    flagged = sum(prompts[row].memorized for row in rows)
    return Group(name, memorized, len(rows), flagged, share(flagged, len(rows)), rows)


def _rates(
    numbers: Mapping[str, Numbers], positive: list[int], negative: list[int], seed: int, rounds: int
) -> dict[str, Rates]:
    some = {key: values[np.array(positive)] for key, values in numbers.items()}
    others = {key: values[np.array(negative)] for key, values in numbers.items()}
    # the same prompts are drawn anew in the same way, whatever other groups there are
    draws = derived_seed(seed, "benchmark", len(positive), len(negative))
    return {key: Rates(*both) for key, both in told_apart(some, others, seed=draws, rounds=rounds).items()}
