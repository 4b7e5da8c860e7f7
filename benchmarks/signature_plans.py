"""Is a signature of one step as good as one of five? `python -m benchmarks.signature_plans --work FOLDER`.

Each model of the zoo is to be recognised by signatures of its own general images that it is asked about, next to the
mean signature of five other images of each model, by both plans. FOLDER keeps images and signatures.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptomnesia.attribution.identify import identify_signatures
from cryptomnesia.attribution.library import Signatures
from cryptomnesia.signals.spectral import SEED, cosine_distance, rows_per_image

from .attribution_zoo import Zoo
from .common import arguments, store, table

LEARNED, ASKED, TOGETHER = 5, 14, 7  # general images per model


def measured(zoo: Zoo, plan: Any) -> dict[str, float]:
    """Returns the share of images that lie closest to their own maker's mean, and of sevens of them that are named."""
    none = torch.zeros(0, 4, 16, 16)
    library = [
        Signatures(
            name, "", "", "", (4, 16, 16), plan, SEED, False, zoo.signatures(name, name, "dev", plan, LEARNED), none
        )
        for name in zoo.pool
    ]
    means, alone, together = torch.stack([entry.prototype for entry in library]), [], []
    for number, name in enumerate(zoo.pool):
        values = zoo.signatures(name, name, "eval", plan, ASKED)
        alone.append((cosine_distance(values, means).argmin(1) == number).double().mean().item())
        sevens = [identify_signatures(part, library).decision for part in values.split(TOGETHER)]
        together += [answer == name for answer in sevens]
    return {"rows": rows_per_image(plan), "one image": float(np.mean(alone)), "seven": float(np.mean(together))}


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True, "metavar": "FOLDER"})
    torch.set_grad_enabled(False)
    zoo = Zoo(options.work)
    found = {plan: measured(zoo, plan) for plan in ("1step", "5step")}
    table(["plan", *found["1step"]], [[plan, *row.values()] for plan, row in found.items()])
    store("signature_plans", {"pool": zoo.pool, "learned": LEARNED, "asked": ASKED, "plans": found})


if __name__ == "__main__":
    main()
