"""Whose denoiser is this, and who made this image? `python -m benchmarks.attribution WORK`, on the zoo.

WORK keeps images and measurements, so that a stopped run goes on where it was. Two questions under two names:

- model identification: signatures of a model on its own images, against the means of all models (the paper's protocol);
- image attribution: every candidate is probed with the image, without knowing who made it.

The evidence and its combination were chosen on dev and calibration images, these being what is learned from; fresh
images, with captions and seeds of their own, are reported.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.attribution.attribute import answers
from cryptomnesia.attribution.candidates import NONE
from cryptomnesia.attribution.combination import AttributionCalibration, learn
from cryptomnesia.attribution.evidence import Evidence, default_groups

from .attribution_identification import identification, paired_identification, signature_alone
from .attribution_images import CHANGES, captions_of
from .attribution_zoo import MEASURED, Zoo
from .common import store, stored, table

ABLATION: dict[str, tuple[str, ...]] = {
    "default, prompt known": MEASURED,
    "default, prompt unknown": default_groups(prompted=False),
    "former default, prompt known": ("empty", "clean", "prompt", "autoencoder"),
    **{f"only {name}": (name,) for name in ("empty", "clean", "prompt", "pull")},
    **{f"default without {name}": tuple(other for other in MEASURED if other != name) for name in MEASURED},
}
CHANGED = tuple(ABLATION)[:3]  # what altered images are judged by
SIGNED = ("identification", "paired_identification", "signature_alone")  # kept as stored where not measured anew


def joined(zoo: Zoo, split: str, makers: list[str], change: str = "clean") -> tuple[Evidence, Tensor]:
    """Returns evidence of several models' images, and the number of each one's maker; unseen models count on from the
    pool."""
    parts = [zoo.evidence(maker, split, change) for maker in makers]
    numbers = torch.cat([torch.full((len(p),), zoo.makers.index(m)) for p, m in zip(parts, makers, strict=True)])
    return Evidence.cat(parts), numbers


def learned_from(zoo: Zoo, makers: list[str]) -> tuple[Evidence, Tensor]:
    """Returns evidence of the images that are learned from, and the number of each one's maker."""
    parts = [joined(zoo, split, makers) for split in zoo.learned]
    return Evidence.cat([evidence for evidence, _ in parts]), torch.cat([numbers for _, numbers in parts])


def outcomes(calibration: AttributionCalibration, evidence: Evidence, *, closed: bool) -> list[str]:
    """Returns what is decided on each image; among the candidates alone if the set is closed."""
    decided = answers(evidence, calibration)
    return [min(a.distances, key=lambda name: a.distances[name]) if closed else a.decision for a in decided]


def accuracy(zoo: Zoo, decided: list[str], makers: Tensor) -> dict[str, float]:
    """Returns the share decided rightly, by maker, and their mean; an unseen model's images are rightly "none of
    these"."""
    shares = {}
    for number, name in enumerate(zoo.makers):
        of_maker = [d for d, m in zip(decided, makers.tolist(), strict=True) if m == number]
        if of_maker:
            wanted = name if name in zoo.pool else NONE
            shares[name] = sum(d == wanted for d in of_maker) / len(of_maker)
    return {"mean": float(np.mean(list(shares.values()))), **shares}


def false_attributions(zoo: Zoo, decided: list[str], makers: Tensor) -> float:
    """Returns the share of images that are attributed to a candidate that did not make them."""
    return float(np.mean([d not in (NONE, zoo.makers[m]) for d, m in zip(decided, makers.tolist(), strict=True)]))


def confusion(zoo: Zoo, decided: list[str], makers: Tensor) -> dict[str, dict[str, int]]:
    """Returns the number of each decision, by maker."""
    names = [*zoo.pool, NONE]
    rows = {}
    for number, maker in enumerate(zoo.makers):
        of_maker = [d for d, m in zip(decided, makers.tolist(), strict=True) if m == number]
        if of_maker:
            rows[maker] = {name: of_maker.count(name) for name in names if of_maker.count(name)}
    return rows


def calibrated(zoo: Zoo, groups: tuple[str, ...]) -> AttributionCalibration:
    """Returns what is learned from the pool's calibration images."""
    evidence, makers = learned_from(zoo, zoo.pool)
    return learn(evidence.only(groups), makers, [""] * len(zoo.pool))


def attribution(zoo: Zoo, split: str) -> dict[str, Any]:
    """Returns accuracies of closed and open set, by groups of evidence, with confusion matrices for the defaults."""
    pool, makers = joined(zoo, split, zoo.pool)
    all_images, all_makers = joined(zoo, split, zoo.makers)
    results: dict[str, Any] = {"images_per_model": len(captions_of(split))}
    for name, groups in ABLATION.items():
        calibration = calibrated(zoo, groups)
        closed = outcomes(calibration, pool.only(groups), closed=True)
        opened = outcomes(calibration, all_images.only(groups), closed=False)
        results[name] = {"closed": accuracy(zoo, closed, makers), "open": accuracy(zoo, opened, all_makers)}
        results[name]["false_attributions"] = false_attributions(zoo, opened, all_makers)
        if name.startswith("default,"):
            results[name]["closed_confusion"] = confusion(zoo, closed, makers)
            results[name]["open_confusion"] = confusion(zoo, opened, all_makers)
            results[name]["calibration_error"] = calibration_error(
                calibration, all_images.only(groups), zoo, all_makers
            )
    rows = [[name, r["closed"]["mean"], r["open"]["mean"]] for name, r in results.items() if name in ABLATION]
    table([f"evidence ({split})", "closed set", "open set"], rows)
    return results


def calibration_error(calibration: AttributionCalibration, evidence: Evidence, zoo: Zoo, makers: Tensor) -> float:
    """Returns the mean gap between stated probability and share that is right, over five bins of equal size."""
    judged = calibration.judge(evidence).probabilities
    stated, chosen = judged.max(1)
    right = (chosen == makers.clamp(max=len(zoo.pool))).double()
    order = stated.argsort().chunk(5)
    return float(np.mean([abs(float(stated[bin].mean() - right[bin].mean())) for bin in order]))


def left_out(zoo: Zoo, split: str, groups: tuple[str, ...]) -> dict[str, float]:
    """Returns the share of each model's images called "none of these" where that model is not among the candidates."""
    shares = {}
    for number, name in enumerate(zoo.pool):
        others = [n for n in zoo.pool if n != name]
        evidence, makers = learned_from(zoo, others)
        makers = makers - (makers > number).long()
        calibration = learn(evidence.without(number).only(groups), makers, [""] * len(others))
        images = zoo.evidence(name, split).without(number).only(groups)
        shares[name] = outcomes(calibration, images, closed=False).count(NONE) / len(images)
    return shares


def after_changes(zoo: Zoo, split: str, changes: list[str]) -> dict[str, Any]:
    """Returns accuracies of the defaults on altered images, with what was learned from unaltered ones."""
    results: dict[str, Any] = {}
    for change, name in product(changes, CHANGED):
        groups = ABLATION[name]
        pool, makers = joined(zoo, split, zoo.pool, change)
        all_images, all_makers = joined(zoo, split, zoo.makers, change)
        calibration = calibrated(zoo, groups)
        closed = accuracy(zoo, outcomes(calibration, pool.only(groups), closed=True), makers)
        decided = outcomes(calibration, all_images.only(groups), closed=False)
        results.setdefault(change, {})[name] = {
            **{"closed": closed, "open": accuracy(zoo, decided, all_makers)},
            "false_attributions": false_attributions(zoo, decided, all_makers),
        }
    rows = [
        [change, name, r["closed"]["mean"], r["open"]["mean"], r["false_attributions"]]
        for change, found in results.items()
        for name, r in found.items()
    ]
    table(["change", "evidence", "closed set", "open set", "false attributions"], rows)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--split", default="fresh", choices=["dev", "eval", "fresh"], help="dev or eval to choose by")
    parser.add_argument("--learn-from", nargs="*", default=["calibration"], choices=["dev", "calibration"])
    parser.add_argument("--parts", nargs="*", default=["attribution", "changes", "identification", "signature"])
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), choices=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--plans", nargs="*", default=["1step", "5step"])
    parser.add_argument("--models", nargs="*", help="some of the zoo; by default all that are there")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    zoo = Zoo(options.work, options.models, options.learn_from)
    document: dict[str, Any] = {"split": options.split, "pool": zoo.pool, "left_out_of_the_pool": zoo.unseen}
    document["learned_from"] = {split: len(captions_of(split)) for split in zoo.learned}
    print(f"pool: {', '.join(zoo.pool)}; unseen models: {', '.join(zoo.unseen) or 'none'}")
    if "attribution" in options.parts:
        document["attribution"] = attribution(zoo, options.split)
        document["attribution"]["each_model_left_out"] = {}
        for name in ("default, prompt known", "former default, prompt known"):
            shares = left_out(zoo, options.split, ABLATION[name])
            document["attribution"]["each_model_left_out"][name] = {
                "mean": float(np.mean(list(shares.values()))),
                **shares,
            }
            print(f"called none where left out, {name}:", document["attribution"]["each_model_left_out"][name])
    if "changes" in options.parts:
        document["after_changes"] = after_changes(zoo, options.split, options.changes)
    if "identification" in options.parts:
        document["identification"] = {plan: identification(zoo, plan) for plan in options.plans}
        document["paired_identification"] = paired_identification(zoo)
    if "signature" in options.parts:
        document["signature_alone"] = signature_alone(zoo)
    if options.split == "fresh":
        name = "attribution" if list(zoo.learned) == ["calibration"] else "attribution_more_images"
        # signatures are measured on eval images, which choose nothing there
        kept = {part: value for part, value in stored(name).items() if part in SIGNED and part not in document}
        store(name, document | kept, by="attribution")


if __name__ == "__main__":
    main()
