"""A guard on distilled models and on rectified flow while they sample: `python -m benchmarks.distilled_guarded`.

For each model of known truth: what an attached guard costs (paired calls, taking turns), what is still reproduced after
each mitigation, and how well the place of a template's figure is found. Only captions that the model itself reproduces.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.localization.location import peak_mask

from .common import arguments, store, stored, stored_models, table
from .demo_model import own_distances
from .detection import FED, benign, benign_calibration, true_kinds
from .known_truth import NAMES, load
from .known_truth_captions import HOW
from .masks import iou

POLICIES = ("rewrite", "embed", "reseed")
DRAWS = 4
FIRST_SEED = 5000  # no seed that truth was measured with


def sample(pipe: Any, prompts: list[str], how: dict[str, Any], first: int = FIRST_SEED) -> tuple[Any, float]:
    """Returns the output of one call, one seed after the other, and the seconds that it took."""
    generators = [torch.Generator().manual_seed(first + i) for i in range(len(prompts))]
    started = time.perf_counter()
    out = pipe(prompts, generator=generators, output_type="np", **how)
    return out, time.perf_counter() - started


def overhead(pipe: Any, calibrations: dict[int, Calibration], how: dict[str, Any], pairs: int) -> dict[str, Any]:
    """Returns rows and the ratio of guarded to unguarded wall time, by draws: median and quartiles over pairs."""
    prompts = [c.text for c in select("general", "eval")[:1]]
    found = {}
    for draws, calibration in calibrations.items():
        guard, ratios, rows = Guard(pipe, calibration), [], 0
        for turn in range(-2, pairs):  # the first two warm up, and ask the private draws' empty prompt
            took = {}
            for guarded in ((False, True), (True, False))[turn % 2]:
                if guarded:
                    with guard.attached():
                        out, took[True] = sample(pipe, prompts, how)
                    rows = out.memorization[0].forward_rows
                else:
                    took[False] = sample(pipe, prompts, how)[1]
            if turn >= 0:
                ratios.append(took[True] / took[False])
        quartiles = np.quantile(ratios, [0.25, 0.75]).tolist()
        found[f"n={draws}"] = {"extra_rows": rows, "ratio": median(ratios), "quartiles": quartiles}
    return found


def reproduced(
    captions: list[Caption], images: NDArray[np.floating], limits: dict[str, float], gallery: Gallery | None = None
) -> NDArray[np.bool_]:
    """Returns whether each image (B, 64, 64, 3) in [0, 1] reproduces its caption's, which the gallery holds."""
    pixels = (images * 255).round().astype(np.uint8)
    limit = np.array([limits[c.kind] for c in captions])
    return own_distances(captions, pixels[:, None], gallery)[:, 0] < limit


def mitigated(
    pipe: Any,
    calibration: Calibration,
    captions: list[Caption],
    how: dict[str, Any],
    seeds: int,
    limits: Any,
    policies: Sequence[str] = POLICIES,
) -> dict[str, Any]:
    """Returns, by policy, the share of images that reproduce, of prompts flagged, and of mitigations that held."""
    found: dict[str, Any] = {}
    for policy in ("none", *policies):
        guard = Guard(pipe, calibration, "warn" if policy == "none" else policy)
        hits, flagged, held, rows = [], [], [], []
        for caption in captions:
            with guard.attached():
                out, _ = sample(pipe, [caption.text] * seeds, how)
            hits.append(reproduced([caption] * seeds, out.images, limits).mean())
            tried = [report.mitigation for report in out.memorization if report.mitigation is not None]
            flagged.append(any(r.memorized for r in out.memorization) or bool(tried))
            held += [all(about.held for about in tried)] if tried else []
            rows += [sum({id(a): a.forward_rows + 2 * a.backward_rows for a in tried}.values())] if tried else []
        found[policy] = {
            "reproduces": float(np.mean(hits)),
            "flagged": float(np.mean(flagged)),
            "held": float(np.mean(held)) if held else None,
            "rows": float(np.mean(rows)) if rows else None,
        }
        print(policy, found[policy], flush=True)
    return found


def located(
    pipe: Any,
    calibration: Calibration,
    captions: list[Caption],
    how: dict[str, Any],
    seeds: int,
    limits: Any,
    gallery: Gallery | None = None,
) -> dict[str, Any]:
    """Returns the overlap (IoU) of masks with the figures of template captions, over images that reproduce them."""
    guard, gallery, dark = Guard(pipe, calibration), gallery or Gallery.load(), 0
    overlaps: list[float] = []
    alone: list[float] = []
    settings = {"steps": how["num_inference_steps"], "guidance": how["guidance_scale"]}
    for caption in captions:
        truth = gallery.masks[gallery.captions.index(caption)][None]
        for seed in range(seeds):
            report = guard.check(caption.text, seed=FIRST_SEED + seed)
            known = replace(report, verdict="memorized")  # as it is: what the mask is worth, not the verdict
            location = guard.locate(caption.text, seed=FIRST_SEED + seed, report=known, **settings)
            image = location.image.permute(1, 2, 0).numpy()[None]
            if reproduced([caption], image, limits, gallery)[0]:
                dark += not report.memorized
                overlaps.append(float(iou(location.region[None].numpy(), truth)[0]))
                alone.append(float(iou(peak_mask(location.map[None]).numpy(), truth)[0]))
    return {
        "images": len(overlaps),
        "iou": float(np.mean(overlaps)),
        "iou_by_the_map_alone": float(np.mean(alone)),
        "without_a_mask": dark,
    }


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 4},
        pairs={"type": int, "default": 15},
        captions={"type": int, "default": None, "help": "only so many of each kind"},
        split={"default": "eval"},
        policies={"nargs": "*", "default": POLICIES},
        only={"nargs": "*", "default": NAMES},
    )
    warnings.simplefilter("ignore")
    limits, truths = stored("demo_model")["limits"], stored("known_truth_captions")["models"]
    models: dict[str, Any] = stored_models("distilled_guarded") if options.split == "eval" else {}
    for name in options.only:
        pipe, how, rates = load(name), HOW[name], truths[name]["by_caption"]
        pipe.set_progress_bar_config(disable=True)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        denoiser = to_denoiser(pipe)
        calibrations = {n: benign_calibration(denoiser, benign(rates), n, 101) for n in (1, DRAWS)}
        kept = true_kinds(options.split, rates)[0]
        captions = [c for kind in FED for c in [c for c in kept if c.kind == kind][: options.captions]]
        print(f"\n{name}: {len(captions)} captions", flush=True)
        models[name] = {"captions": len(captions), **how, "seeds": options.seeds, "pairs": options.pairs}
        models[name]["overhead"] = overhead(pipe, calibrations, how, options.pairs)
        print(models[name]["overhead"], flush=True)
        with_calibration = pipe, calibrations[DRAWS]
        models[name]["mitigation"] = mitigated(
            *with_calibration, captions, how, options.seeds, limits, options.policies
        )
        templates = [c for c in captions if c.kind == "template"]
        models[name]["localization"] = located(*with_calibration, templates, how, 2, limits)
        print(models[name]["localization"], flush=True)
        if options.split == "eval":
            store("distilled_guarded", {"models": models})
    table(
        ["model", "n=1 rows", "ratio", *("none", *POLICIES), "IoU"],
        [
            [
                name,
                about["overhead"]["n=1"]["extra_rows"],
                about["overhead"]["n=1"]["ratio"],
                *(about["mitigation"].get(policy, {}).get("reproduces", "-") for policy in ("none", *POLICIES)),
                about["localization"]["iou"],
            ]
            for name, about in models.items()
        ],
    )


if __name__ == "__main__":
    main()
