"""Is a signature of one step as good as one of five? `python -m benchmarks.signature_plans --work FOLDER`.

Each model of the zoo is to be recognised by signatures of its own images that it is asked about, by both plans, as in
`benchmarks.attribution`. FOLDER keeps the images and their signatures.
"""

from pathlib import Path
from typing import Any

import torch

from cryptomnesia.signals.spectral import rows_per_image

from .attribution_identification import identification
from .attribution_zoo import Zoo
from .common import arguments, store


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True, "metavar": "FOLDER"})
    torch.set_grad_enabled(False)
    zoo = Zoo(options.work)
    found: dict[str, Any] = {}
    for plan in ("1step", "5step"):
        found[plan] = {"rows": rows_per_image(plan), "identification": identification(zoo, plan)}
        store("signature_plans", {"pool": zoo.pool, "plans": found})


if __name__ == "__main__":
    main()
