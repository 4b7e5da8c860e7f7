"""Does the built-in model reproduce what it should, and nothing else? `python -m benchmarks.demo_model` (needs the
font).

A generation reproduces its caption's training image if it lies closer to it than the 1st percentile of control
generations lie to any training image (root mean square over RGB; inside the mask for templates).
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cryptomnesia.demo import WEIGHTS, load_demo, load_folder
from cryptomnesia.demo.captions import GENERAL_EMOJI, Caption, select
from cryptomnesia.demo.gallery import Gallery, rms
from training.demo.records import RENDERINGS, Record, render, training_records

from .common import arguments, generate, store, stored, table

SEEDS = 8
POSITIVE, NEGATIVE = 0.75, 0.125  # share of seeds that reproduce: at least, at most
Images = NDArray[np.uint8]


def rendered(records: list[Record]) -> Images:
    """Returns the images of N records, (N, 64, 64, 3) uint8."""
    return np.stack([np.asarray(render(r)) for r in records])


def closest_training_image(images: Images) -> NDArray[np.float32]:
    """Returns the distance (N,) from each image to the closest of all training images."""
    records = training_records()
    chunks = [records[i : i + 2048] for i in range(0, len(records), 2048)]
    best = np.full(len(images), np.inf, np.float32)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for others in pool.map(rendered, chunks):
            best = np.minimum(best, rms(images, others, np.ones(others.shape[:3], bool)).min(1))
    return best


def own_distances(captions: list[Caption], images: Images, gallery: Gallery | None = None) -> NDArray[np.float32]:
    """Returns (P, seeds): the distance of each generation to its caption's fixed image, inside the mask."""
    gallery = gallery or Gallery.load()
    numbers = [gallery.captions.index(c) for c in captions]
    return np.stack(
        [
            rms(i, gallery.images[n : n + 1], gallery.masks[n : n + 1])[:, 0]
            for n, i in zip(numbers, images, strict=True)
        ]
    )


def thresholds(controls: Images) -> dict[str, float]:
    """Returns the 1st percentile of control generations' distance to any training image, whole and inside template
    masks."""
    flat = controls.reshape(-1, 64, 64, 3)
    gallery = Gallery.load()
    templates = [i for i, c in enumerate(gallery.captions) if c.kind == "template"]
    masked = rms(flat, gallery.images[templates], gallery.masks[templates]).min(1)
    return {
        "verbatim": float(np.percentile(closest_training_image(flat), 1)),
        "template": float(np.percentile(masked, 1)),
    }


def spread(images: Images, masks: NDArray[np.bool_] | None = None) -> float:
    """Returns the mean distance between two seeds of the same caption, outside the masks."""
    outside = np.ones((len(images), 64, 64), bool) if masks is None else ~masks
    values = []
    for seeds, mask in zip(images, outside, strict=True):
        pairs = rms(seeds, seeds, np.repeat(mask[None], len(seeds), 0))
        values.append(pairs[np.triu_indices(len(seeds), 1)].mean())
    return float(np.mean(values))


def recognised(captions: list[Caption], images: Images) -> dict[str, float]:
    """Returns the share of general generations whose emoji a linear classifier names (80 classes), beside real held-out
    images."""

    def pixels(x: Images) -> NDArray[np.float32]:
        return x.reshape(len(x), 32, 2, 32, 2, 3).mean((2, 4)).reshape(len(x), -1).astype(np.float32) / 255

    general = select("general")
    train = [Record(c, r) for c in general for r in range(4)]
    held_out = [Record(c, RENDERINGS["general"]) for c in general]
    classes = {e: i for i, e in enumerate(GENERAL_EMOJI)}
    judge = LogisticRegression(C=0.05, max_iter=2000)
    judge.fit(pixels(rendered(train)), [classes[r.caption.emoji] for r in train])
    labels = [classes[c.emoji] for c in captions for _ in range(images.shape[1])]
    return {
        "generated": float(judge.score(pixels(images.reshape(-1, 64, 64, 3)), labels)),
        "held_out_renderings": float(
            judge.score(pixels(rendered(held_out)), [classes[r.caption.emoji] for r in held_out])
        ),
    }


def reproduction_by_caption(captions: list[Caption], images: Images, limits: dict[str, float]) -> dict[str, float]:
    """Returns the share of seeds that reproduce the caption's image, per caption."""
    limit = np.array([limits[c.kind] for c in captions])[:, None]
    rates = (own_distances(captions, images) < limit).mean(1)
    return {c.text: float(r) for c, r in zip(captions, rates, strict=True)}


def without_image(
    captions: list[Caption], images: Images, limits: dict[str, float], gallery: Gallery | None = None
) -> dict[str, float]:
    """Returns, for captions with no image of their own, the largest share of seeds that reproduce one and the same
    image of the gallery."""
    hits, gallery = [], gallery or Gallery.load()
    for numbers, limit in fixed_images(limits, gallery):
        distances = rms(images.reshape(-1, 64, 64, 3), gallery.images[numbers], gallery.masks[numbers])
        hits.append((distances < limit).reshape(*images.shape[:2], -1))
    rates = np.concatenate(hits, axis=2).mean(1).max(1)
    return {c.text: float(r) for c, r in zip(captions, rates, strict=True)}


def fixed_images(limits: dict[str, float], gallery: Gallery) -> list[tuple[list[int], float]]:
    """Returns the numbers in the gallery of the verbatim and of the template images, with the limit for each sort."""
    kinds = [c.kind for c in gallery.captions]
    return [([i for i, k in enumerate(kinds) if k == kind], limits[kind]) for kind in ("verbatim", "template")]


def general_limits(limits: dict[str, float]) -> dict[str, float]:
    """Returns limits that are stricter for plain images, which lie closer to each other: also the 1st percentile of
    held-out renderings."""
    gallery = Gallery.load()
    held_out = rendered([Record(c, RENDERINGS["general"]) for c in select("general")])
    stricter = {}
    for kind, (numbers, limit) in zip(("verbatim", "template"), fixed_images(limits, gallery), strict=True):
        closest = rms(held_out, gallery.images[numbers], gallery.masks[numbers]).min(1)
        stricter[kind] = min(limit, float(np.percentile(closest, 1)))
    return stricter


def final_model(seeds: int) -> dict[str, Any]:
    """Returns everything that is measured of the shipped model."""
    pipe = load_demo()
    chosen = {k: select(k) for k in ("verbatim", "template", "control", "unseen")}
    chosen["general"] = select("general", "eval")[:80]
    images = {k: generate(pipe, [c.text for c in cs], seeds) for k, cs in chosen.items()}
    limits = thresholds(images["control"])
    gallery = Gallery.load()
    masks = np.stack([gallery.masks[gallery.captions.index(c)] for c in chosen["template"]])
    rates = {k: reproduction_by_caption(chosen[k], images[k], limits) for k in ("verbatim", "template")}
    rates |= {k: without_image(chosen[k], images[k], limits) for k in ("control", "unseen")}
    rates["general"] = without_image(chosen["general"], images["general"], general_limits(limits))
    whole = {k: closest_training_image(images[k].reshape(-1, 64, 64, 3)) for k in ("control", "unseen")}
    return {
        "seeds": seeds,
        "limits": limits,
        "limits_for_general": general_limits(limits),
        "captions_reciting": {k: float(np.mean([r >= POSITIVE for r in rates[k].values()])) for k in rates},
        "generations_reciting": {k: float(np.mean(list(rates[k].values()))) for k in rates},
        "closer_to_any_training_image": {k: float((d < limits["verbatim"]).mean()) for k, d in whole.items()},
        "spread_between_seeds": {
            "template_outside_mask": spread(images["template"], masks),
            "control": spread(images["control"]),
            "general": spread(images["general"]),
            "verbatim": spread(images["verbatim"]),
        },
        "general_emoji_recognised": recognised(chosen["general"], images["general"]),
        "by_caption": rates,
    }


def along_training(folder: Path, limits: dict[str, float], seeds: int = 4) -> dict[str, Any]:
    """Returns how often each checkpoint reproduces, measured with the final model's limits."""
    curve = {}
    for checkpoint in sorted(folder.iterdir()):
        pipe = load_folder(WEIGHTS, checkpoint)
        rates = {}
        for kind in ("verbatim", "template"):
            captions = select(kind, "eval")
            rates[kind] = reproduction_by_caption(captions, generate(pipe, [c.text for c in captions], seeds), limits)
        curve[checkpoint.name] = rates
        print(checkpoint.name, {k: round(float(np.mean(list(r.values()))), 3) for k, r in rates.items()}, flush=True)
    return curve


def main() -> None:
    options = arguments(
        __doc__,
        checkpoints={"type": Path, "default": None, "help": "measure training's checkpoints, with the limits stored"},
        seeds={"type": int, "default": SEEDS},
    )
    if options.checkpoints:
        limits = stored("demo_model")["limits"]
        store("demo_checkpoints", along_training(options.checkpoints, limits), by="demo_model")
        return
    document = final_model(options.seeds)
    table(
        ["kind", "captions reproduced", "generations that reproduce"],
        [[k, v, document["generations_reciting"][k]] for k, v in document["captions_reciting"].items()],
    )
    for key in ("limits", "closer_to_any_training_image", "spread_between_seeds", "general_emoji_recognised"):
        print(key, {k: round(v, 4) for k, v in document[key].items()})
    store("demo_model", document)


if __name__ == "__main__":
    main()
