"""Which weight of one model is which of another, whatever their formats call them."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .network_weights import NetworkWeights

SAMPLES = 2048  # values of each weight that are compared where names say nothing
LEAST = 0.2  # cosine of samples; of unrelated weights it is within .1
SAME_NAMES = 0.9  # share of the target's weights; below it the formats differ
# how many matrices lie on top of each other in one, as queries, keys and values do in some formats
LAYOUTS = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4))


class Part(NamedTuple):
    """A weight, or one of the matrices that lie on top of each other in it."""

    name: str
    number: int = 0
    of: int = 1

    def read(self, weights: NetworkWeights) -> Tensor:
        """Returns its values, float32."""
        return weights.read(self.name).chunk(self.of)[self.number]


class Pair(NamedTuple):
    """A weight of the target, and the same one of a candidate."""

    target: Part
    candidate: Part


def pairs_of(target: NetworkWeights, candidate: NetworkWeights) -> list[Pair]:
    """Returns the weights that both have: by names and shapes; by values where names are those of another format.

    Values tell only where the models are related: of two unrelated ones in different formats nothing is paired.
    """
    same = [name for name, shape in target.shapes.items() if candidate.shapes.get(name) == shape]
    if len(same) >= SAME_NAMES * len(target.shapes) or len(same) >= SAME_NAMES * len(candidate.shapes):
        return [Pair(Part(name), Part(name)) for name in same]
    found: list[Pair] = []
    for ours, theirs in LAYOUTS:
        parts = _parts(target, {pair.target.name for pair in found}, ours)
        found += _by_values(
            parts, _parts(candidate, {pair.candidate.name for pair in found}, theirs), target, candidate
        )
    return found


def _parts(weights: NetworkWeights, paired: set[str], of: int) -> dict[tuple[int, ...], list[Part]]:
    """Weights that are not paired yet, or each of so many that lie on top of each other in one, by shape."""
    found: dict[tuple[int, ...], list[Part]] = defaultdict(list)
    for name, (first, *rest) in weights.shapes.items():
        if name not in paired and first % of == 0:
            found[(first // of, *rest)] += [Part(name, number, of) for number in range(of)]
    return found


def _by_values(
    ours: dict[tuple[int, ...], list[Part]],
    theirs: dict[tuple[int, ...], list[Part]],
    target: NetworkWeights,
    candidate: NetworkWeights,
) -> list[Pair]:
    """Pairs of equal shape whose values go together, the surest first, each weight once."""
    found: list[Pair] = []
    for shape in ours.keys() & theirs.keys():
        cosine = _samples(ours[shape], target) @ _samples(theirs[shape], candidate).T
        for flat in np.argsort(-cosine, axis=None):
            i, j = divmod(int(flat), cosine.shape[1])
            if cosine[i, j] < LEAST:
                break
            found.append(Pair(ours[shape][i], theirs[shape][j]))
            cosine[i], cosine[:, j] = -2, -2
    return found


def _samples(parts: list[Part], weights: NetworkWeights) -> np.ndarray:
    return np.stack([_sample(part, weights) for part in parts])


def _sample(part: Part, weights: NetworkWeights) -> np.ndarray:
    values = part.read(weights).flatten()
    values = values[:: max(1, values.numel() // SAMPLES)][:SAMPLES].double()
    values = values / values.norm().clamp_min(1e-30)
    return torch.nn.functional.pad(values, (0, SAMPLES - len(values))).numpy()
