"""Rectified flow on captions that no choice has looked at: `python -m benchmarks.flow_sealed` (needs the font).

What the model reproduces of them, how well that is told before sampling, and where. The calibration is that of
`benchmarks.distilled`, on the usual captions; nothing may be chosen by what comes out here.
"""

from typing import Any

import numpy as np

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.captions import KINDS, Caption
from cryptomnesia.demo.gallery import Gallery
from training.demo.records import Record, template_foreground
from training.flow_captions import SEALED, select
from training.latents import pictures
from training.reproduction import generate

from .common import arguments, store, stored, stored_models, table
from .demo_model import POSITIVE, own_distances, without_image
from .detection import NEGATIVES, POSITIVES, benign, benign_calibration, by_truth
from .distilled import SHOWN, evaluate
from .distilled_guarded import located
from .known_truth import FLOW, load
from .known_truth_captions import HOW

NAME = "flow_sealed"
SAMPLED = {"unseen": 56, "general": 40}  # of these; of the others, all. General ones beyond count as clear
SEEDS = 4


def fixed_images() -> Gallery:
    """Returns the sealed captions' fixed images and masks."""
    captions = [c for kind in ("verbatim", "template") for c in select(kind, SEALED)]
    masks = [
        np.asarray(template_foreground(c).getchannel("A")) > 127 if c.kind == "template" else np.ones((64, 64), bool)
        for c in captions
    ]
    return Gallery(captions, pictures([Record(c, 0) for c in captions]), np.stack(masks))


def together(*galleries: Gallery) -> Gallery:
    """Returns one gallery of all."""
    return Gallery(
        [c for gallery in galleries for c in gallery.captions],
        np.concatenate([gallery.images for gallery in galleries]),
        np.concatenate([gallery.masks for gallery in galleries]),
    )


def rates(pipe: Any, captions: list[Caption], own: Gallery, every: Gallery) -> dict[str, float]:
    """Returns by caption the share of seeds that reproduce its image, or, without one, one image of any caption."""
    truth, kind = stored("demo_model"), captions[0].kind
    images = generate(pipe, [c.text for c in captions], SEEDS, **HOW[FLOW])
    if kind in truth["limits"]:
        hits = own_distances(captions, images, own) < truth["limits"][kind]
        return {c.text: float(rate) for c, rate in zip(captions, hits.mean(1), strict=True)}
    limits = truth["limits_for_general" if kind == "general" else "limits"]
    return without_image(captions, images, limits, every)


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 2, "help": "noise seeds of the detection"},
        where={"action": "store_true", "help": "measure only the masks, and keep what is stored of the rest"},
    )
    pipe, own = load(FLOW), fixed_images()
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False)
    every = together(Gallery.load(), own)
    truth = stored_models(NAME).get(FLOW, {}).get("by_caption", {})
    for kind in KINDS:  # what is stored already is not sampled again
        if kind not in truth:
            truth[kind] = rates(pipe, select(kind, SEALED)[: SAMPLED.get(kind)], own, every)
            store(NAME, {"models": {FLOW: {"by_caption": truth}}})
    sampled = [c for kind in KINDS for c in select(kind, SEALED) if kind == "general" or c.text in truth[kind]]
    captions, apart = by_truth(sampled, truth)
    about: dict[str, Any] = {
        **HOW[FLOW],
        "seeds": SEEDS,
        "captions_reproduced": {k: float(np.mean([r >= POSITIVE for r in v.values()])) for k, v in truth.items()},
        "kept": {k: sum(c.kind == k for c in captions) for k in (*POSITIVES, *NEGATIVES)},
        "set_apart": apart,
    }
    print(about, flush=True)
    normal, denoiser = benign(stored("known_truth_captions")["models"][FLOW]["by_caption"]), to_denoiser(pipe)
    if options.where:
        about["detection"] = stored_models(NAME)[FLOW]["detection"]
    else:
        about["detection"] = {f"n={n}": evaluate(denoiser, captions, normal, n, options.seeds) for n in (1, 4)}
    rows = [[n, *(a["pairs"][pair]["default"]["auc"] for pair in SHOWN)] for n, a in about["detection"].items()]
    table(["AUC", *SHOWN], rows)
    print({n: a["flagged_at_alpha_.01"] for n, a in about["detection"].items()}, flush=True)
    templates = [c for c in captions if c.kind == "template"]
    limits, known = stored("demo_model")["limits"], benign_calibration(denoiser, normal, 4, 101)
    about["localization"] = located(pipe, known, templates, HOW[FLOW], 2, limits, own)
    print(about["localization"])
    store(NAME, {"models": {FLOW: {**about, "by_caption": truth}}})


if __name__ == "__main__":
    main()
