"""Could an attribution go by what images show, rather than by who made them?

It can where candidates were asked for different things: then their images differ whoever made them. Prompts tell, if
they are known; if not, pictures that plain features tell apart leave it open. And where the models' own answers do not
tell two candidates' images apart while the pictures do, only the pictures can be what is learned. As in membership, a
classifier that knows no model decides, see `comparability`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..comparability import (
    ALPHA,
    IMAGE_FEATURES,
    PERMUTATIONS,
    PROMPT_FEATURES,
    comparability,
    image_features,
    prompt_features,
)
from ..errors import InputError
from ..prompts.recorded import alike
from .evidence import Evidence
from .gaussian import RELATIVE

SAME = 0.003  # share of the spread among images: half precision moves answers by 0.001, a hundredth of noise by 0.02
MOST_WORDS = 200

Reasons = dict[tuple[str, str], str]
"""Why two candidates cannot be told apart, by the pair of their names."""


def require_different(evidence: Evidence) -> None:
    """Raises InputError, naming both, if two candidates answer alike on every image, but for rounding."""
    answers = _answers(evidence)
    spread = answers.std(0).clamp_min(1e-9)  # (C, F), among images
    for a, b in combinations(range(len(evidence.names)), 2):
        off = ((answers[:, a] - answers[:, b]).square().mean(0).sqrt() / spread[a]).square().mean().sqrt()
        if off < SAME:
            raise InputError(
                f"the candidates {evidence.names[a]!r} and {evidence.names[b]!r} answer alike on every image: they are "
                "one model, so nothing tells who of them made an image; leave one out"
            )


def confounded(evidence: Evidence, maker: Tensor, pictures: Sequence[Tensor], prompts: Sequence[str] | None) -> Reasons:
    """Finds the pairs of candidates between which no verdict is possible.

    Args:
        evidence: Evidence of n images under C candidates.
        maker: (n,) number of each image's maker.
        pictures: The images, (1, 3, H, W) in [0, 1].
        prompts: The images' prompts, if they are known.

    Returns:
        The reason by pair of names; empty where all can be told apart.

    Raises:
        MissingPackage: scikit-learn or scipy is not installed.
    """
    reasons: Reasons = {}
    answers, features = _answers(evidence), _features(pictures)
    for a, b in combinations(range(len(evidence.names)), 2):
        names = evidence.names[a], evidence.names[b]
        if prompts is not None:
            word = _differing_word([[prompts[int(i)] for i in _rows(maker, m)] for m in (a, b)], len(evidence.names))
            if word is not None:
                reasons[names] = f"their prompts differ, most in {word!r}"
                continue
        between = (answers[:, a] - answers[:, b]).numpy()
        if _apart(between, maker, (a, b), 1) is None and (feature := _apart(features, maker, (a, b), 1)) is not None:
            reasons[names] = f"their images are told apart by what they show ({feature}), not by what the models answer"
    return reasons


def unchecked(maker: Tensor, names: Sequence[str], pictures: Sequence[Tensor]) -> Reasons:
    """Returns how pictures of two candidates differ in kind, by pair of names, for images without known prompts.

    Empty where all are alike. `maker` (n,) numbers each picture's maker; pictures are (1, 3, H, W) in [0, 1]. Raises
    MissingPackage without scikit-learn or scipy.
    """
    features, reasons = _features(pictures), {}
    for a, b in combinations(range(len(names)), 2):
        feature = _apart(features, maker, (a, b), len(names))
        if feature is not None:
            reasons[names[a], names[b]] = feature
    return reasons


def about(reasons: Mapping[tuple[str, str], str], name: str) -> list[str]:
    """Returns the reasons that concern one candidate, each as a clause with both names."""
    return [f"{a} and {b}: {why}" for (a, b), why in reasons.items() if name in (a, b)]


def _answers(evidence: Evidence) -> Tensor:
    """What the denoisers answered, (n, C, F)."""
    return torch.cat([values for name, values in evidence.groups.items() if name in RELATIVE], -1)


def _features(pictures: Sequence[Tensor]) -> NDArray[np.float64]:
    return np.array([image_features(picture) for picture in pictures], dtype=np.float64)


def _apart(values: NDArray[np.float64], maker: Tensor, pair: tuple[int, int], candidates: int) -> str | None:
    """The feature by which numbers (n, F) tell two makers' images apart most; None if they do not."""
    names = IMAGE_FEATURES
    names = names if values.shape[1] == len(names) else tuple(map(str, range(values.shape[1])))
    comparison = comparability(values[_rows(maker, pair[0])], values[_rows(maker, pair[1])], names)
    return None if comparison.p_value > _level(candidates) else comparison.differs_most


def _differing_word(prompts: Sequence[Sequence[str]], candidates: int) -> str | None:
    """The word, or the trait, by which two sets of prompts differ most; None if they are of one kind."""
    written = [[alike(prompt) for prompt in texts] for texts in prompts]
    if set(written[0]) == set(written[1]):
        return None
    count = Counter(word for texts in written for text in texts for word in set(text.split()) if word != ",")
    words = tuple(word for word, _ in count.most_common(MOST_WORDS))
    rows = [
        np.array([[*prompt_features(text), *(float(w in text.split()) for w in words)] for text in texts])
        for texts in written
    ]
    comparison = comparability(rows[0], rows[1], (*PROMPT_FEATURES, *words))
    return None if comparison.p_value > _level(candidates) else comparison.differs_most


def _level(candidates: int) -> float:
    """A false alarm in any pair shall be as rare as ALPHA, as far as the number of permutations allows."""
    pairs = max(1, candidates * (candidates - 1) // 2)
    return max(ALPHA / pairs, 1.5 / (PERMUTATIONS + 1))


def _rows(maker: Tensor, number: int) -> NDArray[np.int64]:
    return (maker == number).nonzero().flatten().numpy()
