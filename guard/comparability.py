"""Can two sets of images be told apart at a glance? Then a difference between them says nothing about training.

Suspects and references must be of one kind: a model finds images of another style, size or quality easier or harder
whether it saw them or not. A classifier on plain image features, blind to the model, tries to tell them apart (Dubinski
et al. 2025, "CDI", arXiv 2411.12858, and the critique of CopyMark, arXiv 2410.03640).
"""

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import require
from .finite import require_finite
from .two_samples import auc

ALPHA = 0.05  # share of comparable pairs of sets that are called confounded
PERMUTATIONS = 199
FOLDS = 5
PENALTY = 10.0  # of the ridge
BANDS = 4
FLAT = 1.5 / 255  # steps in brightness that are no edge
_SIDE = 64  # pixels of the copy that textures are read from

IMAGE_FEATURES = (
    *(f"mean {c}" for c in ("red", "green", "blue")),
    *(f"spread of {c}" for c in ("red", "green", "blue")),
    *(f"brightness at {q} %" for q in (5, 25, 50, 75, 95)),
    "colourfulness",
    "sharpness",
    "fine detail",
    "8-pixel blocks",
    "flat parts",
    "compressed size",
    *(f"detail in band {band + 1} of {BANDS}" for band in range(BANDS)),
    *(f"brightness of part {part + 1} of 4" for part in range(4)),
    "width",
    "height",
)
PROMPT_FEATURES = ("length of the prompt", "words of the prompt", "letters of the prompt")


@dataclass(frozen=True)
class Comparability:
    """How well plain features tell suspects from references.

    Attributes:
        auc: Cross-validated; .5 = not at all, 1 = always.
        p_value: Share of random splits of the same images that are told apart as well.
        differs_most: The feature that differs most by itself.
        alpha: At this p-value or less the sets are not comparable.
    """

    auc: float
    p_value: float
    differs_most: str
    alpha: float = ALPHA

    @property
    def comparable(self) -> bool:
        """Whether no difference in kind was found between the sets."""
        return self.p_value > self.alpha


def image_features(pixels: Tensor) -> list[float]:
    """Returns the IMAGE_FEATURES of an image (1, 3, H, W) in [0, 1], pixel statistics in no particular unit."""
    image = pixels[0].double()
    grey = image.mean(0)
    height, width = grey.shape
    small = torch.nn.functional.interpolate(grey[None, None], (_SIDE, _SIDE), mode="bilinear", antialias=True)[0, 0]
    across, down = grey.diff(dim=1), grey.diff(dim=0)
    bend = grey[1:-1, 1:-1] * 4 - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    parts = torch.nn.functional.adaptive_avg_pool2d(grey[None], 2).flatten()
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    return [
        *image.flatten(1).mean(1).tolist(),
        *image.flatten(1).std(1).tolist(),
        *torch.quantile(small.flatten(), levels).tolist(),
        float((image.amax(0) - image.amin(0)).mean()),
        _log(across.square().mean() + down.square().mean()),
        _log(bend.square().mean()),
        _blocks(across, 1) + _blocks(down, 0),
        float(((across[:-1].abs() < FLAT) & (down[:, :-1].abs() < FLAT)).double().mean()),
        math.log(len(zlib.compress((small * 255).round().byte().numpy().tobytes()))),
        *_bands(small),
        *parts.tolist(),
        math.log(width),
        math.log(height),
    ]


def prompt_features(prompt: str) -> list[float]:
    """Returns the PROMPT_FEATURES of a prompt."""
    letters = sum(c.isalpha() for c in prompt) / max(1, len(prompt))
    return [math.log1p(len(prompt)), math.log1p(len(prompt.split())), letters]


def comparability(
    suspects: NDArray[np.float64], references: NDArray[np.float64], names: tuple[str, ...], *, seed: int = 0
) -> Comparability:
    """Tries to tell two sets of features (n, F) apart: by all of them together, and by the one that differs most.

    A ridge classifier on standardised features in five-fold cross-validation, and the largest AUC of a single feature,
    which sees more in small sets. The better of the two p-values by permutation (Ojala & Garriga 2010), corrected for
    the choice by the same permutations (Westfall & Young 1993). The order of the rows plays no part.

    Raises:
        InputError: NaN or infinity among the features.
        MissingPackage: scikit-learn or scipy is not installed.
    """
    for features in (suspects, references):
        require_finite(features, "the features of images")
    x = np.concatenate([_in_order(suspects), _in_order(references)])
    y = np.repeat([1.0, 0.0], [len(suspects), len(references)])
    varied = x.std(0) > 1e-9 * (1 + np.abs(x.mean(0)))
    if not varied.any():
        return Comparability(0.5, 1.0, names[0])
    rng = np.random.default_rng(seed)
    # the true labels first, then permuted ones, as columns
    labels = np.stack([y, *(rng.permutation(y) for _ in range(PERMUTATIONS))], 1)
    apart = _single_features(x, labels)
    together = _told_apart(x[:, varied], labels, min(FOLDS, len(suspects), len(references)), seed)
    best = np.minimum(_p_values(together), _p_values(apart.max(0)))
    return Comparability(float(together[0]), float((best <= best[0]).mean()), names[int(apart[:, 0].argmax())])


def _in_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted, so that folds and permutations are the same in whatever order the rows came."""
    return rows[np.lexsort(rows.T[::-1])]


def _told_apart(x: NDArray[np.float64], labels: NDArray[np.float64], folds: int, seed: int) -> NDArray[np.float64]:
    """Cross-validated AUC of each column of labels; all are learned side by side, as columns of one regression."""
    selection, linear = require("sklearn.model_selection", "audit"), require("sklearn.linear_model", "audit")
    scaling, pipelines = require("sklearn.preprocessing", "audit"), require("sklearn.pipeline", "audit")
    model: Any = pipelines.make_pipeline(scaling.StandardScaler(), linear.Ridge(PENALTY))
    split = selection.KFold(folds, shuffle=True, random_state=seed)
    found = selection.cross_val_predict(model, x, labels, cv=split)
    scores = [auc(score[label == 0], score[label == 1]) for score, label in zip(found.T, labels.T, strict=True)]
    return np.array(scores)


def _single_features(x: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, columns) |AUC - .5| of each feature for each column of labels, by its ranks."""
    ranks = require("scipy.stats", "audit").rankdata(x, axis=0)
    count = labels.sum(0)
    found = (ranks.T @ labels - count * (count + 1) / 2) / (count * (len(x) - count))
    return np.abs(found - 0.5)


def _p_values(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of all scores that are as large as each."""
    return (scores[None] >= scores[:, None] - 1e-12).mean(1)


def _log(value: Tensor) -> float:
    return math.log(float(value) + 1e-8)


def _blocks(steps: Tensor, side: int) -> float:
    """How much larger steps across the borders of 8x8 blocks are, which JPEG leaves behind."""
    size = steps.abs().mean(dim=1 - side) if steps.ndim == 2 else steps
    border = torch.arange(len(size)) % 8 == 7
    if not border.any():
        return 0.0
    return float(size[border].mean() - size[~border].mean())


def _bands(small: Tensor) -> list[float]:
    """Log energy in rings of the frequency plane, coarse to fine, without the mean."""
    power = torch.fft.fft2(small - small.mean(), norm="ortho").abs().square()
    y, x = torch.fft.fftfreq(_SIDE)[:, None], torch.fft.fftfreq(_SIDE)[None]
    ring = (torch.sqrt(y**2 + x**2) * 2 * BANDS).long().clamp(max=BANDS - 1)
    return [_log(power[ring == band].mean()) for band in range(BANDS)]
