"""Whose child is this model, by the images that it makes? Several prompts vote, and are tested together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders import Encoder, open_encoder
from ..errors import InputError, require
from ..progress import Progress
from ..signals.lineage import DIMENSION, TAU, Array, Lineage, distances, judged, unrolled
from .embedding import Embedder
from .folders import as_images
from .multiscale import MultiScale
from .sources import Distinct, common, prompts_known

DRAWS = 200
FEW, ENOUGH = 30, 8  # images, prompts; with fewer the answer hangs on single ones
DOUBTFUL = 0.25  # p-value below which "none" is not likely
FINEST = 0.01  # smallest distance that means something
NONE = "none of these"
UNTESTED, UNDECIDED, TARGET = "not tested", "no majority", "the target"
PROMPTS_UNKNOWN = "Nothing tells whether all models were given the same prompts; if not, the answer means nothing."
_RESERVED = (NONE, UNTESTED, UNDECIDED, TARGET)


@dataclass(frozen=True)
class Parentage:
    """What a model's images say about its parent, over all prompts.

    Attributes:
        decision: The name of the likely parent, "none of these", "not tested" for a pool of one or two, or
            "no majority" where the mean over the prompts points to a model that not most of them are closest to.
        votes: How many prompts are closest to each model, by its name.
        confidence: Share of bootstrap draws (of prompts, and of the images of each) with the same decision, in [0, 1];
            None where nothing was tested.
        whole: The result of all prompts together, from the mean of their distances.
        prompts: The result of each prompt alone.
        encoder: Name of the encoder that turned images into vectors.
        prompts_known: Whether folders or files say that all models were given the same prompts. If not, the answer
            holds only if they were.
    """

    decision: str
    votes: dict[str, int]
    confidence: float | None
    whole: Lineage
    prompts: dict[str, Lineage]
    encoder: str
    prompts_known: bool = True

    @property
    def prompts_told(self) -> bool:
        """The old name of `prompts_known`."""
        return self.prompts_known

    @property
    def verdict(self) -> bool:
        """Whether there is a verdict: a parent, or none of these."""
        return self.decision not in (UNTESTED, UNDECIDED)

    @property
    def parent(self) -> str | None:
        """The likely parent, if there is one."""
        return self.decision if self.verdict and self.decision != NONE else None

    @property
    def distances(self) -> dict[str, float]:
        """Distance from the target to each model of the pool, over all prompts; smaller = closer. See `Lineage`."""
        return self.whole.distances

    @property
    def null_threshold(self) -> float | None:
        """Distance from which a model is no parent; None where that cannot be tested."""
        return self.whole.null_threshold

    @property
    def p_value(self) -> float | None:
        """How often the nearest of as many unrelated models would be as near, in [0, 1]; None where untested."""
        return self.whole.p_value

    @property
    def margin(self) -> float | None:
        """How many times farther the second closest is than the closest; None for a pool of one.

        A distance that chance explains is 0; it counts as `FINEST`, so that the ratio says something.
        """
        near = [max(value, FINEST) for value in sorted(self.distances.values())]
        return near[1] / near[0] if len(near) > 1 else None

    @property
    def fewest(self) -> int:
        """Number of images of the model and prompt that has the fewest."""
        return min(min(one.images[0], *one.images[1].values()) for one in self.prompts.values())

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        if self.decision == UNTESTED:
            return f"Not tested; nearest is {max(self.votes, key=lambda name: self.votes[name])}"
        if self.decision == UNDECIDED:
            return "No majority among the prompts"
        # that unrelated models seldom come as near as the nearest is no sign of none
        torn = self.decision == NONE and (self.p_value or 0) < DOUBTFUL
        sure = "likely" if (self.confidence or 0) >= 0.9 and not torn else "perhaps"
        answer = f"{sure} {NONE}" if self.decision == NONE else f"{sure} a child of {self.decision}"
        return answer[0].upper() + answer[1:] if self.prompts_known else f"If all show the same prompts: {answer}"

    def notes(self) -> list[str]:
        """Returns sentences on what the answer rests on, and on what it does not say."""
        votes = ", ".join(f"{count} closest to {name}" for name, count in self.votes.items())
        prompts = f"{len(self.prompts)} prompt{'s' if len(self.prompts) > 1 else ''}"
        agree = "" if self.confidence is None else f"; {100 * self.confidence:.0f} % of bootstrap draws agree"
        notes = [] if self.prompts_known else [PROMPTS_UNKNOWN]
        notes.append(f"{prompts}: {votes}{agree}.")
        if self.parent is not None and self.distances[self.parent] < FINEST:
            notes.append(f"Its images cannot be told from those of {self.parent}: it may be that very model.")
        if self.p_value is not None:
            share = f"{100 * self.p_value:.0f} %" if self.p_value >= 0.005 else "under 1 %"
            count = len(self.distances)
            notes.append(
                f"{self.whole.nearest}: the nearest of {count} unrelated models is as near in {share} of all cases."
            )
        if self.parent is not None:
            notes.append("Siblings, and models that learned from the same images, may be as near as parent and child.")
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
        """Returns plain data for JSON, and for a sidecar's findings."""
        return {
            "kind": "lineage",
            "decision": self.decision,
            "parent": self.parent,
            "confidence": self.confidence,
            "votes": self.votes,
            "fewest": self.fewest,
            "distances": self.distances,
            "null_threshold": self.null_threshold,
            "p_value": self.p_value,
            "margin": self.margin,
            "dropped": self.whole.dropped,
            "encoder": self.encoder,
            "prompts_told": self.prompts_known,
            "prompts": [{"prompt": prompt, **one.to_dict()} for prompt, one in self.prompts.items()],
            "notes": self.notes(),
        }

    def plot(self, width: int = 620) -> Any:
        """Returns a Pillow image `width` pixels wide: the distances as bars, with the threshold as a line."""
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
    """Tells which model of a pool is likely the target's parent by the images that both make, or that none is.

    Args:
        target: Images of the model in question: a folder, images of one prompt, or images by prompt.
        pool: Images of the same prompts by the name of each model that may be the parent, each given like the target's;
            at least 11 images of each model and prompt, better 100.
        encoder: An .onnx file, a CLIP folder or an `Encoder`; by default the one that ships.
        scales: Scales whose features are put together, such as (1, 2); see `MultiScale`.
        dimension, tau: Dimensions that are kept and the test's threshold; see `signals.lineage.lineage`.
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.
        progress: Called with the numbers of images read and of all.

    Returns:
        The answer over all prompts, with the distances that it rests on.

    Raises:
        InputError: No images, unusable ones, one that is given as two models', prompts that only some models have or
            images that say they are of different ones, or as `lineage` says.
        NonFiniteError: The encoder answered with NaN or infinity.
        MissingPackage: scikit-learn, onnxruntime, transformers or Pillow is not installed.
    """
    if draws < 1:
        raise InputError(f"the bootstrap needs at least one draw, not {draws}")
    require("sklearn", "audit")  # refused before all images are read
    sources = {TARGET: as_images(target), **{name: as_images(images) for name, images in _named(pool).items()}}
    prompts, known = common(sources, dimension), prompts_known(sources)
    counts = {prompt: [len(by_prompt[prompt]) for by_prompt in sources.values()] for prompt in prompts}
    scaled, distinct = MultiScale(open_encoder(encoder), scales), Distinct()
    tables, again, random = {}, [], np.random.default_rng(seed)
    embedder = Embedder(scaled, distinct, sum(map(sum, counts.values())), progress)
    for prompt in prompts:
        embeddings = [embedder.embed(name, prompt, by_prompt[prompt]) for name, by_prompt in sources.items()]
        distinct.check(max(map(len, embeddings)))
        points = unrolled(embeddings, list(pool), dimension)
        tables[prompt] = distances(points)
        again.append([distances(_drawn(points, random)) for _ in range(draws)])
    parentage = combined(tables, again, list(pool), counts, scaled.name, random, tau=tau)
    return replace(parentage, prompts_known=known)


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
    """Decides on all prompts together, and counts how often draws of prompts and of their images agree.

    Args:
        tables: Distances (m, m) between models by prompt, the target's first.
        again: Distances (m, m) with the images drawn again: as many tables for each prompt as there are draws.
        names: Names of the pool's models.
        images: Number of images of each model, the target first, by prompt.
        encoder: The encoder's name.
        random: Draws the prompts.
        tau: The test's threshold; see `signals.lineage.lineage`.

    Returns:
        The answer, with the share of draws that agree as its confidence.

    Raises:
        InputError: A distance is NaN or infinity.
    """
    prompts = {prompt: judged(table, names, images[prompt], tau=tau) for prompt, table in tables.items()}
    least = [min(counts) for counts in zip(*images.values(), strict=True)]
    whole = judged(np.mean(list(tables.values()), axis=0), names, least, tau=tau)
    decided, draws = decide(whole, list(prompts.values())), len(again[0])
    same = 0
    for draw, rows in enumerate(random.integers(len(tables), size=(draws, len(tables))).tolist()):
        drawn = [again[row][draw] for row in rows]
        singly = [judged(table, names, least, tau=tau) for table in drawn]
        same += decide(judged(np.mean(drawn, axis=0), names, least, tau=tau), singly) == decided
    votes = Counter(one.nearest for one in prompts.values())
    confidence = None if decided == UNTESTED else same / draws
    return Parentage(decided, dict(votes.most_common()), confidence, whole, prompts, encoder)


def decide(whole: Lineage, prompts: Sequence[Lineage]) -> str:
    """Returns the decision of the mean over all prompts, if most prompts are closest to the parent that it names.

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


def _named(pool: Mapping[str, Any]) -> Mapping[str, Any]:
    odd = [name for name in pool if not isinstance(name, str) or not name.strip() or name in _RESERVED]
    if odd:
        raise InputError(f"a model of the pool cannot be called {odd[0]!r}: give it another name")
    if not pool:
        raise InputError("the pool is empty: give at least one model that may be the parent")
    return pool
