"""What each model of known truth reproduces, caption by caption: `python -m benchmarks.known_truth_captions`.

As `benchmarks.demo_model` does for the built-in model, with its limits: images of every caption of all splits, from the
same seeds, sampled as the model is meant to be. Models that are stored already are left as they are.
"""

from typing import Any

import numpy as np

from cryptomnesia.demo.captions import KINDS, select
from training.reproduction import generate

from .common import arguments, store, stored, stored_models, table
from .demo_model import NEGATIVE, POSITIVE, own_distances, without_image
from .known_truth import FLOW, NAMES, load

NAME = "known_truth_captions"
SEEDS = 8
GENERAL = 80  # captions of the evaluation split; the others count as clear
HOW: dict[str, dict[str, Any]] = {
    "scale-input": {"guidance_scale": 7.5, "num_inference_steps": 20},
    "scale-baked-in": {"guidance_scale": 1.0, "num_inference_steps": 20},
    "four-steps": {"guidance_scale": 1.0, "num_inference_steps": 4},
    FLOW: {"guidance_scale": 7.0, "num_inference_steps": 20},
}


def rates(pipe: Any, how: dict[str, Any], seeds: int) -> dict[str, dict[str, float]]:
    """Returns by kind and caption the share of seeds that reproduce its image, or one image of any caption."""
    truth, found = stored("demo_model"), {}
    for kind in KINDS:
        captions = select(kind, "eval")[:GENERAL] if kind == "general" else select(kind)
        images = generate(pipe, [c.text for c in captions], seeds, **how)
        if kind in truth["limits"]:
            hits = own_distances(captions, images) < np.array([truth["limits"][kind]])
            found[kind] = {c.text: float(rate) for c, rate in zip(captions, hits.mean(1), strict=True)}
        else:
            limits = truth["limits_for_general" if kind == "general" else "limits"]
            found[kind] = without_image(captions, images, limits)
        print(kind, round(float(np.mean(list(found[kind].values()))), 3), flush=True)
    return found


def main() -> None:
    options = arguments(__doc__, seeds={"type": int, "default": SEEDS}, only={"nargs": "*", "default": NAMES})
    models = stored_models(NAME)
    for name in options.only:
        if name in models:
            continue
        print(name, flush=True)
        found = rates(load(name), HOW[name], options.seeds)
        models[name] = {
            **HOW[name],
            "seeds": options.seeds,
            "captions_reproduced": {k: float(np.mean([r >= POSITIVE for r in v.values()])) for k, v in found.items()},
            "in_between": {k: sum(NEGATIVE < r < POSITIVE for r in v.values()) for k, v in found.items()},
            "by_caption": found,
        }
        store(NAME, {"models": models})
    table(["model", *KINDS], [[name, *about["captions_reproduced"].values()] for name, about in models.items()])


if __name__ == "__main__":
    main()
