"""Whose child is this model, by the images that it makes? Several prompts vote, and are tested together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, require
from ..pixels import read_picture
from ..progress import Progress
from ..signals.lineage import DIMENSION, TAU, Array, Lineage, distances, judged, unrolled
from .encoders import Embeddings, Encoder, open_encoder
from .folders import as_images
from .multiscale import MultiScale
from .sources import Distinct, common, prompts_told

DRAWS = 200
FEW, ENOUGH = 30, 8  # images, prompts; with fewer the answer hangs on single ones
PER_CALL = 16  # images in memory
FINEST = 0.01  # of a distance
NONE = "none of these"
UNTESTED, UNDECIDED, TARGET = "not tested", "no majority", "the target"
UNTOLD = "Nothing tells whether all models were asked for the same prompts; if not, the answer means nothing."
_TAKEN = (NONE, UNTESTED, UNDECIDED, TARGET)


@dataclass(frozen=True)
class Parentage:
    """What a model's images say about its parent, over all prompts.

    Attributes:
        decision: The name of the likely parent, "none of these", "not tested" for a pool of one or two, or
            "no majority" where the mean over the prompts points to a model that not most of them are closest to.
        votes: Prompts by the model that they are closest to.
        confidence: Share of bootstrap draws (of prompts, and of the images of each) with the same decision, in [0, 1];
            None where nothing was tested.
        whole: What all prompts say together, from the mean of their distances.
        prompts: What each prompt says.
        encoder: Which one the images were looked at with.
        prompts_told: Whether folders or files tell that all models were asked for the same prompts. If not, the answer
            holds only if they were.
    """

    decision: str
    votes: dict[str, int]
    confidence: float | None
    whole: Lineage
    prompts: dict[str, Lineage]
    encoder: str
    prompts_told: bool = True

    @property
    def verdict(self) -> bool:
        """Whether there is one: a parent, or none of these."""
        return self.decision not in (UNTESTED, UNDECIDED)

    @property
    def parent(self) -> str | None:
        """The likely parent, if there is one."""
        return self.decision if self.verdict and self.decision != NONE else None

    @property
    def distances(self) -> dict[str, float]:
        """From the target to each model of the pool, over all prompts; see `Lineage.distances`."""
        return self.whole.distances

    @property
    def null_threshold(self) -> float | None:
        """Distance from which a model is no parent; None where that cannot be tested."""
        return self.whole.null_threshold

    @property
    def margin(self) -> float | None:
        """How many times farther the second closest is than the closest; None for a pool of one.

        A distance that chance explains is 0; it counts as `FINEST`, so that the ratio says something.
        """
        near = [max(value, FINEST) for value in sorted(self.distances.values())]
        return near[1] / near[0] if len(near) > 1 else None

    @property
    def fewest(self) -> int:
        """Images of the model and prompt that has the fewest."""
        return min(min(one.images[0], *one.images[1].values()) for one in self.prompts.values())

    def headline(self) -> str:
        """The outcome in a few words."""
        if self.decision == UNTESTED:
            return f"Not tested; nearest is {max(self.votes, key=lambda name: self.votes[name])}"
        if self.decision == UNDECIDED:
            return "No majority among the prompts"
        sure = "likely" if (self.confidence or 0) >= 0.9 else "perhaps"
        answer = f"{sure} {NONE}" if self.decision == NONE else f"{sure} a child of {self.decision}"
        return answer[0].upper() + answer[1:] if self.prompts_told else f"If all show the same prompts: {answer}"

    def notes(self) -> list[str]:
        """What it rests on, and what it does not say, in sentences."""
        votes = ", ".join(f"{count} closest to {name}" for name, count in self.votes.items())
        prompts = f"{len(self.prompts)} prompt{'s' if len(self.prompts) > 1 else ''}"
        agree = "" if self.confidence is None else f"; {100 * self.confidence:.0f} % of bootstrap draws agree"
        notes = [] if self.prompts_told else [UNTOLD]
        notes.append(f"{prompts}: {votes}{agree}.")
        if self.parent is not None and self.distances[self.parent] < FINEST:
            notes.append(f"Its images cannot be told from those of {self.parent}: it may be that very model.")
        if len(self.prompts) < ENOUGH:
            notes.append(f"A single prompt is often wrong about none of these: give {ENOUGH} or more.")
        notes += [
            f"{gone} was left out: it is too close to {kept} to tell them apart."
            for gone, kept in self.whole.dropped.items()
        ]
        pool = len(self.distances)
        if self.decision == UNTESTED:
            notes.append(f"A pool of {pool} does not tell how far apart unrelated models are: give three or more.")
        elif pool == 3:
            notes.append("Three models have three distances: a rough threshold. Give more unrelated models.")
        if self.fewest < FEW:
            notes.append(f"Only {self.fewest} images of a model and prompt: unsure, give {FEW} or more.")
        return [*notes, "A likelihood from images alone, no proof of what was trained on what."]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "kind": "lineage",
            "decision": self.decision,
            "parent": self.parent,
            "confidence": self.confidence,
            "votes": self.votes,
            "fewest": self.fewest,
            "distances": self.distances,
            "null_threshold": self.null_threshold,
            "margin": self.margin,
            "dropped": self.whole.dropped,
            "encoder": self.encoder,
            "prompts_told": self.prompts_told,
            "prompts": [{"prompt": prompt, **one.to_dict()} for prompt, one in self.prompts.items()],
            "notes": self.notes(),
        }

    def plot(self, width: int = 620) -> Any:
        """The distances as bars with the threshold as a line, a Pillow image."""
        from .plots import parentage_plot

        return parentage_plot(self, width=width)


def find_parent(
    target: Any,
    pool: Mapping[str, Any],
    *,
    encoder: "str | Path | Encoder | None" = None,
    scales: Sequence[int] = (1,),
    dimension: int = DIMENSION,
    tau: float = TAU,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Parentage:
    """Which model of a pool do the target's images point to as its parent, or none of them?

    Args:
        target: Images of the model in question: a folder, images of one prompt, or images by prompt.
        pool: Likewise, by the name of each model that may be the parent, of the same prompts; at least 11 images of
            each model and prompt, better 100.
        encoder: An .onnx file, a CLIP folder or an `Encoder`; by default the one that ships.
        scales: Of the features that are put together, such as (1, 2); see `MultiScale`.
        dimension, tau: See `signals.lineage.lineage`.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
        progress: Called with the numbers of images looked at and of all.

    Raises:
        InputError: No images, unusable ones, one that is given as two models', prompts that only some models have or
            images that say they are of different ones, or as `lineage` says.
        NonFiniteError: The encoder answered with NaN or infinity.
        MissingPackage: scikit-learn, onnxruntime, transformers or Pillow is not installed.
    """
    if draws < 1:
        raise InputError(f"the bootstrap needs at least one draw, not {draws}")
    require("sklearn", "audit")  # told before all images are looked at
    sources = {TARGET: as_images(target), **{name: as_images(images) for name, images in _named(pool).items()}}
    prompts, told = common(sources, dimension), prompts_told(sources)
    eyes, distinct = MultiScale(open_encoder(encoder), scales), Distinct()
    tables, again, random = {}, [], np.random.default_rng(seed)
    look = _Looking(eyes, distinct, sum(len(own[prompt]) for prompt in prompts for own in sources.values()), progress)
    for prompt in prompts:
        seen = [look.at(name, prompt, own[prompt]) for name, own in sources.items()]
        distinct.check(max(map(len, seen)))
        points = unrolled(seen, list(pool), dimension)
        tables[prompt] = distances(points)
        again.append([distances(_drawn(points, random)) for _ in range(draws)])
    images = {prompt: [len(own[prompt]) for own in sources.values()] for prompt in prompts}
    found = combined(tables, again, list(pool), images, eyes.name, random, tau=tau)
    return replace(found, prompts_told=told)


def combined(
    tables: Mapping[str, Array],
    again: Sequence[Sequence[Array]],
    names: Sequence[str],
    images: Mapping[str, Sequence[int]],
    encoder: str,
    random: np.random.Generator,
    *,
    tau: float = TAU,
) -> Parentage:
    """The decision on all prompts, and how often it is the same among draws of prompts and of their images.

    Args:
        tables: Distances (m, m) by prompt, the target's first.
        again: Likewise, with the images drawn again, as often for each prompt.
        names: Of the pool.
        images: How many of each model, by prompt.
        encoder: Its name.
        random: Draws the prompts.
        tau: See `signals.lineage.lineage`.

    Raises:
        InputError: A distance is NaN or infinity.
    """
    prompts = {prompt: judged(table, names, images[prompt], tau=tau) for prompt, table in tables.items()}
    least = [min(counts) for counts in zip(*images.values(), strict=True)]
    whole = judged(np.mean(list(tables.values()), axis=0), names, least, tau=tau)
    decided, draws = decide(whole, list(prompts.values())), len(again[0])
    same = 0
    for draw, rows in enumerate(random.integers(len(tables), size=(draws, len(tables))).tolist()):
        some = [again[row][draw] for row in rows]
        singly = [judged(table, names, least, tau=tau) for table in some]
        same += decide(judged(np.mean(some, axis=0), names, least, tau=tau), singly) == decided
    votes = Counter(one.nearest for one in prompts.values())
    confidence = None if decided == UNTESTED else same / draws
    return Parentage(decided, dict(votes.most_common()), confidence, whole, prompts, encoder)


def decide(whole: Lineage, prompts: Sequence[Lineage]) -> str:
    """What the mean over all prompts says, if most prompts are closest to the parent that it names.

    The paper lets each prompt decide, and takes the majority. Here all are tested together, since single prompts are
    often wrong about none, and their mean much less so.
    """
    if not whole.tested:
        return UNTESTED
    if whole.parent is None:
        return NONE
    (_, most), *others = Counter(one.nearest for one in prompts).most_common(2)
    votes = sum(one.nearest == whole.parent for one in prompts)
    tied = bool(others) and others[0][1] == most
    return UNDECIDED if votes < most or tied else whole.parent


def _drawn(points: Sequence[Array], random: np.random.Generator) -> list[Array]:
    """The images of every model drawn again; where they lie stays."""
    return [rows[random.integers(len(rows), size=len(rows))] for rows in points]


class _Looking:
    """Turns images into vectors, a few at a time, and counts them."""

    def __init__(self, encoder: Encoder, distinct: Distinct, total: int, progress: Progress | None):
        self.encoder, self.distinct, self.progress = encoder, distinct, progress
        self.done, self.total = 0, total

    def at(self, name: str, prompt: str, images: Sequence[Any]) -> Embeddings:
        """(n, D) of n images of a model and prompt."""
        parts = []
        for start in range(0, len(images), PER_CALL):
            given = images[start : start + PER_CALL]
            some = [read_picture(image, f"an image by {name}") for image in given]
            self.distinct.add(name, prompt, some, given)
            parts.append(self.encoder.encode(some))
            self.done += len(some)
            if self.progress is not None:
                self.progress(self.done, self.total)
        return np.concatenate(parts)


def _named(pool: Mapping[str, Any]) -> Mapping[str, Any]:
    odd = [name for name in pool if not isinstance(name, str) or not name.strip() or name in _TAKEN]
    if odd:
        raise InputError(f"a model of the pool cannot be called {odd[0]!r}: give it another name")
    if not pool:
        raise InputError("the pool is empty: give at least one model that may be the parent")
    return pool
