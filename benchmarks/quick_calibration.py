"""What a quick calibration gives away: `python -m benchmarks.quick_calibration`.

100 benign captions at one draw (two images' worth of the network) beside all of them at one and at four draws: what is
flagged at alpha .01, by kind, as `benchmarks.detection` has the kinds. Several noise seeds; quick ones of several lots.
"""

import random
from typing import Any

import numpy as np
import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import private_noise
from cryptomnesia.calibration_run import QUICK_DRAWS, QUICK_PROMPTS
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import Caption
from cryptomnesia.signals.memorization import memorization_score

from .common import arguments, store, stored, table
from .detection import NEGATIVES, POSITIVES, benign, benign_calibration, flagged, true_kinds


def shares(denoiser: Any, captions: list[Caption], normal: list[Caption], draws: int, seed: int) -> dict[str, float]:
    """Returns the share of each kind that is flagged with a calibration on these benign captions."""
    calibration = benign_calibration(denoiser, normal, draws, 100 + seed)
    noise = private_noise(denoiser, range(len(captions)), draws, seed, denoiser.latent_shape())
    condition = denoiser.encode([c.text for c in captions])
    measured = memorization_score(denoiser, condition, noise=noise, alignment=False)
    return flagged({"default": calibration.score(measured).double().numpy()}, captions, calibration)


def main() -> None:
    options = arguments(__doc__, seeds={"type": int, "default": 10})
    torch.set_grad_enabled(False)
    rates = stored("demo_model")["by_caption"]
    captions, normal, denoiser = true_kinds("eval", rates)[0], benign(rates), to_denoiser(load_demo())
    ways = {
        "quick": (QUICK_PROMPTS, QUICK_DRAWS),
        "all, 1 draw": (len(normal), 1),
        "all, 4 draws": (len(normal), 4),
    }
    found: dict[str, Any] = {}
    for name, (count, draws) in ways.items():
        runs = []
        for seed in range(1, options.seeds + 1):
            lot = random.Random(seed).sample(normal, count)
            runs.append(shares(denoiser, captions, lot, draws, seed))
        kinds = [kind for kind in (*POSITIVES, *NEGATIVES) if kind in runs[0]]
        found[name] = {
            "captions": count,
            "draws": draws,
            "rows": 2 * count * draws,
            "flagged": {kind: float(np.mean([run[kind] for run in runs])) for kind in kinds},
            "least": {kind: float(np.min([run[kind] for run in runs])) for kind in kinds},
            "most": {kind: float(np.max([run[kind] for run in runs])) for kind in kinds},
        }
        print(name, found[name]["flagged"], flush=True)
    kinds = list(found["quick"]["flagged"])
    table(["flagged at alpha .01", *kinds], [[name, *row["flagged"].values()] for name, row in found.items()])
    store("quick_calibration", {"noise_seeds": options.seeds, "ways": found})


if __name__ == "__main__":
    main()
