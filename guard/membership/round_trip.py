"""Was an image made by a model? The images that an autoencoder decodes survive another round trip, photographs do not.

A latent model finds its own images as easy as those it was trained on, if not easier (Zhao et al. 2026, "Member vs
Generated Inference", arXiv 2606.23872), so that a test of membership would take the ones for the others. But whatever a
model made has been through its autoencoder's decoder: encoding and decoding it again loses hardly more than doing so a
second time does, where an image from elsewhere loses most of its finest detail the first time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NonFiniteError, require
from ..finite import require_finite
from ..protocols import ImageDenoiser

RATE = 0.01  # of images from elsewhere that are said to look generated
MOST_BY_CHANCE = 0.05  # such a share of a folder is let pass as chance
SURE = 0.01  # level of the test whether there are more
ROUNDING = 1 / (12 * 255**2)  # mean squared error of 8-bit pixels: what is lost below that says nothing


@dataclass(frozen=True)
class Generated:
    """Which of a folder's images look as if a model had made them.

    Attributes:
        rows: Their places among the suspects.
        limit: Images whose number lies below look generated; from the references.
        p_value: How likely so many are by chance, with a share of MOST_BY_CHANCE expected.
    """

    rows: tuple[int, ...]
    limit: float
    p_value: float

    @property
    def many(self) -> bool:
        """Whether they are more than chance allows."""
        return self.p_value <= SURE


def round_trips(coder: ImageDenoiser, images: Tensor) -> Tensor:
    """Returns how much more the first round trip through an autoencoder loses than the second, on a log scale.

    Args:
        coder: The autoencoder.
        images: (B, 3, H, W) in [0, 1], at the size that the autoencoder takes.

    Returns:
        (B,) float64 on the CPU, about 0 for images that it decoded itself, and nothing was done to since; higher for
        images from elsewhere. 0 where nothing is ever lost.

    Raises:
        NonFiniteError: The autoencoder answered with NaN or infinity.
    """
    lost: list[Tensor] = []
    here = images.float().cpu()
    with torch.no_grad():
        for _ in range(2):
            there = coder.decode(coder.encode_image(here)).float().cpu().clamp(0, 1)
            lost.append((there - here).double().square().flatten(1).mean(1))
            here = there
    ratio = ((lost[0] + ROUNDING) / (lost[1] + ROUNDING)).log()
    if not torch.isfinite(ratio).all():
        raise NonFiniteError("the autoencoder answered with NaN or infinity: load it in float32")
    return ratio


def look_generated(suspects: NDArray[np.float64], references: NDArray[np.float64]) -> Generated:
    """Tells which suspects look generated, compared with references that were not.

    The limit is the lower end of a Gaussian prediction interval, so that of images like the references RATE lie below.

    Args:
        suspects, references: The numbers of `round_trips`, (n,) and (m,).

    Returns:
        Which they are, and whether they are more than chance allows.

    Raises:
        InputError: NaN or infinity.
        MissingPackage: scipy is not installed.
    """
    require_finite(suspects, "the round trips of the suspects")
    require_finite(references, "the round trips of the references")
    stats: Any = require("scipy.stats", "audit")
    count = len(references)
    reach = float(stats.t.ppf(1 - RATE, count - 1)) * math.sqrt(1 + 1 / count)
    limit = float(references.mean()) - reach * float(references.std(ddof=1))
    rows = tuple(int(row) for row in np.flatnonzero(suspects < limit - 1e-9))
    chance = stats.binomtest(len(rows), len(suspects), MOST_BY_CHANCE, alternative="greater")
    return Generated(rows, limit, float(chance.pvalue))


def share(rows: Sequence[int], count: int) -> str:
    """Returns in words how many of so many they are."""
    return f"all {count}" if len(rows) == count else f"{len(rows)} of {count}"
