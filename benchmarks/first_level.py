"""Whether the score holds where samplers start: `python -m benchmarks.first_level`.

A calibration may be made at the first timestep of a sampler (`steps=`), so that an attached guard reads its call. Here
the detection of `benchmarks.detection` at the first steps that diffusers' and ComfyUI's samplers have, 951 (20 steps),
958 (30), 961 (25), 981 (50, the model's own) and 999 (trailing and evenly spaced ones): AUC by pair, and what is
flagged at alpha .01, each by a calibration at the same level.
"""

from typing import Any

import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import calibrate, level_at, private_noise
from cryptomnesia.demo import load_demo
from cryptomnesia.signals.memorization import memorization_score

from .common import arguments, store, stored, table
from .detection import benign, flagged, mean_of, pairs, true_kinds

TIMES = (951, 958, 961, None, 999)  # None: the model's own


def main() -> None:
    options = arguments(__doc__, seeds={"type": int, "default": 3})
    torch.set_grad_enabled(False)
    rates = stored("demo_model")["by_caption"]
    captions, normal = true_kinds("eval", rates)[0], benign(rates)
    denoiser: Any = to_denoiser(load_demo())
    condition, known = (denoiser.encode([c.text for c in lot]) for lot in (captions, normal))
    found: dict[str, Any] = {}
    for draws in (1, 4):
        for time in TIMES:
            auc, shares = [], []
            level = level_at(denoiser, time)
            for seed in range(1, options.seeds + 1):
                calibration = calibrate(denoiser, known, draws=draws, seed=100 + seed, time=time)
                noise = private_noise(denoiser, range(len(captions)), draws, seed, denoiser.latent_shape())
                measured = memorization_score(denoiser, condition, noise=noise, level=level, alignment=False)
                scores = {"default": calibration.score(measured).double().numpy()}
                auc.append({k: v["default"] for k, v in pairs(scores, captions).items()})
                shares.append(flagged(scores, captions, calibration))
            name = f"{draws} draws at {int(level.time.item())}"
            found[name] = {"pairs": mean_of(auc), "flagged": mean_of(shares)}
            print(name, found[name]["flagged"], flush=True)
    kinds = list(next(iter(found.values()))["flagged"])
    table(["flagged at alpha .01", *kinds], [[name, *row["flagged"].values()] for name, row in found.items()])
    store("first_level", {"noise_seeds": options.seeds, "levels": found})


if __name__ == "__main__":
    main()
