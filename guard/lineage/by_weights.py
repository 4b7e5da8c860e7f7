"""Whose child is this model, by its weights: how each candidate's differ from it, and what made the difference.

Networks that were trained apart have weights whose cosine is near 0, whatever they were trained on; what was made from
another network keeps most of it. A merged LoRA differs from its base by few directions per matrix, a fine-tune by many,
and a merge of two models is their weighted mean.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..progress import Progress
from .network_weights import NetworkWeights, network_weights
from .pairing import Pair, pairs_of

RELATED, UNRELATED = 0.5, 0.1  # median cosine per matrix; between them nothing is said
EQUAL = 1e-6  # relative difference that rounding alone may leave
FAR = 0.5  # relative difference beyond which a common beginning is as likely as a child
RANKED = 48  # changed matrices whose rank is measured
ENERGY = 0.99  # of a difference, that its rank holds
LOW_RANK = 0.25  # of a matrix's smaller side, at most, where a LoRA made the difference
MERGED = 0.1  # of the nearest parent's difference (its square), at most, that two parents leave
LEAST_SHARE = 0.02  # of a parent in a merge

Relation = Literal["equal", "lora", "derived", "far", "unclear", "unrelated", "other architecture"]
WORDS: dict[Relation, str] = {
    "equal": "equal weights: the same model",
    "lora": "differs by a LoRA that was merged in",
    "derived": "one was made from the other by training or merging, or both from a third",
    "far": "a common beginning: one was trained on for long, or both began with equal random weights",
    "unclear": "cannot be told: weights go together less than a child's do and more than chance has it",
    "unrelated": "unrelated: weights go together no more than by chance",
    "other architecture": "another architecture, or an unrelated model in another format: weights cannot be paired",
}
KIN: tuple[Relation, ...] = ("equal", "lora", "derived")


@dataclass(frozen=True)
class Kinship:
    """How a candidate's weights stand to the target's.

    Attributes:
        relation: One of `Relation`; WORDS says what it means.
        paired: Share of the target's matrices that the candidate has, too.
        cosine: Median cosine per matrix, in [-1, 1]; 1 = the same direction.
        difference: Norm of the difference over that of the candidate's weights; 0 = equal.
        changed: Share of the paired matrices that differ.
        rank: Median number of directions that hold 99 % of a changed matrix's difference, over its smaller side, in
            (0, 1]; None where nothing is changed.
    """

    relation: Relation
    paired: float
    cosine: float | None = None
    difference: float | None = None
    changed: float | None = None
    rank: float | None = None


@dataclass(frozen=True)
class Descent:
    """What weights say of descent.

    Attributes:
        candidates: Each candidate's kinship, by name.
        parent: The nearest candidate that the target may come from; None where there is none, or it is a merge.
        merge: The shares of two candidates whose weighted mean the target is, by name; None where it is none.
        left: What these two leave of the nearest one's difference (squared norms), in [0, 1]; None likewise.
    """

    candidates: dict[str, Kinship]
    parent: str | None
    merge: dict[str, float] | None = None
    left: float | None = None

    def headline(self) -> str:
        """Says in a sentence what comes out; weights tell no direction of time."""
        if self.merge:
            shares = " and ".join(f"{share:.0%} of {name}" for name, share in self.merge.items())
            return f"a merge: {shares}"
        if self.parent is None:
            return "none of these: no candidate's weights are in it"
        relation = self.candidates[self.parent].relation
        return f"{self.parent}: {WORDS[relation]}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self) | {"headline": self.headline()}


def descent(target: str | Path, candidates: Mapping[str, str | Path], *, progress: Progress | None = None) -> Descent:
    """Compares the weights of a target with those of candidates, matrix by matrix: memory holds one of each at a time.

    Args:
        target: The model in question: a folder, or a .safetensors file in diffusers', the original or ComfyUI's format.
        candidates: Models that it may come from, by name.
        progress: Called with the number of candidates compared, and of all.

    Raises:
        InputError: No candidate, or weights that are missing, damaged, a LoRA's alone, or hold NaN or infinity.
        MissingPackage: safetensors is not installed.
    """
    if not candidates:
        raise InputError("there is nothing to compare with: name models that may be the parent")
    with ExitStack() as stack:
        ours = stack.enter_context(network_weights(target))
        theirs = {name: stack.enter_context(network_weights(source)) for name, source in candidates.items()}
        found: dict[str, Kinship] = {}
        pairs: dict[str, list[Pair]] = {}
        for name, weights in theirs.items():
            pairs[name] = pairs_of(ours, weights)
            found[name] = kinship(ours, weights, pairs[name])
            if progress:
                progress(len(found), len(theirs))
        kin = [name for name in sorted(found, key=lambda n: found[n].difference or 0.0) if found[name].relation in KIN]
        far = [name for name in found if found[name].relation == "far"]
        if not kin:
            return Descent(found, None)
        merge = None
        if found[kin[0]].relation != "equal" and len(kin) + len(far) > 1:
            merge = _merge(ours, {name: (theirs[name], pairs[name]) for name in (*kin, *far)}, kin[0])
        return Descent(found, None, *merge) if merge else Descent(found, kin[0])


def kinship(target: NetworkWeights, candidate: NetworkWeights, pairs: Sequence[Pair]) -> Kinship:
    """Returns how a candidate's weights stand to the target's; errors as in `NetworkWeights.read`."""
    paired = len({pair.target.name for pair in pairs}) / len(target.shapes)
    if paired < 0.5:
        return Kinship("other architecture", paired)
    cosines, parts, changed = [], np.zeros(2), []
    for pair in pairs:
        x, y = _both(pair, target, candidate)
        apart, size = float((x - y).square().sum()), float(y.square().sum())
        cosines.append(float((x * y).sum() / (x.norm() * y.norm()).clamp_min(1e-30)))
        parts += apart, size
        if apart > EQUAL**2 * size:
            changed.append(pair)
    cosine, difference = median(cosines), float(np.sqrt(parts[0] / max(parts[1], 1e-30)))
    share = len(changed) / len(pairs)
    if cosine < RELATED:
        relation: Relation = "unrelated" if cosine < UNRELATED else "unclear"
        return Kinship(relation, paired, cosine, difference, share)
    if not changed:
        return Kinship("equal" if paired == 1 else "derived", paired, cosine, difference, 0.0)
    ranks = _ranks(changed, target, candidate)
    low = float(np.mean([rank <= LOW_RANK for rank in ranks])) >= 0.9
    relation = "lora" if low else "far" if difference > FAR else "derived"
    return Kinship(relation, paired, cosine, difference, share, median(ranks))


def _both(pair: Pair, target: NetworkWeights, candidate: NetworkWeights) -> tuple[Tensor, Tensor]:
    return pair.target.read(target).double(), pair.candidate.read(candidate).double()


def _ranks(changed: Sequence[Pair], target: NetworkWeights, candidate: NetworkWeights) -> list[float]:
    """The share of directions that hold most of the difference, for some of the changed matrices."""
    ranks = []
    for pair in changed[:: max(1, len(changed) // RANKED)][:RANKED]:
        x, y = _both(pair, target, candidate)
        energy = torch.linalg.svdvals((x - y).flatten(1).float()).double().square()
        held = int((energy.cumsum(0) < ENERGY * energy.sum()).sum()) + 1
        ranks.append(held / len(energy))
    return ranks


def _merge(
    target: NetworkWeights, candidates: Mapping[str, tuple[NetworkWeights, list[Pair]]], nearest: str
) -> tuple[dict[str, float], float] | None:
    """The two candidates whose weighted mean comes nearest, and what they leave; None where one alone does as well.

    With shares a and 1 - a, target = a x + (1 - a) y: least squares on (target - y) against (x - y).
    """
    best: tuple[float, str, float] | None = None
    weights, own = candidates[nearest]
    base = {pair.target: pair.candidate for pair in own}
    for name, (other, pairs) in candidates.items():
        if name == nearest:
            continue
        sums = np.zeros(3)
        for pair in pairs:
            if pair.target not in base:
                continue
            y = base[pair.target].read(weights).double()
            aside, along = pair.target.read(target).double() - y, pair.candidate.read(other).double() - y
            sums += [float((aside * along).sum()), float(along.square().sum()), float(aside.square().sum())]
        if sums[1] <= 0 or sums[2] <= 0:
            continue
        share = sums[0] / sums[1]
        left = 1 - sums[0] * share / sums[2]
        if LEAST_SHARE <= share <= 1 - LEAST_SHARE and (best is None or left < best[0]):
            best = max(0.0, left), name, share
    if best is None or best[0] > MERGED:
        return None
    return {nearest: 1 - best[2], best[1]: best[2]}, best[0]
