"""How well memorization is told before sampling: `python -m benchmarks.detection`.

Positives and negatives are what `benchmarks.demo_model` measured: captions that reproduce, and captions that do not.
Every prompt has private noise; the calibration sees captions of its own split only. Several noise seeds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.benchmark.methods import measure
from cryptomnesia.benchmark.rates import stands_out, tpr_at_fpr
from cryptomnesia.calibration import Calibration, calibrate, private_noise
from cryptomnesia.demo import WEIGHTS, load_demo, load_folder
from cryptomnesia.demo.captions import KINDS, Caption, select
from cryptomnesia.signals.baselines import sharpness

from .common import arguments, store, stored, table
from .demo_model import NEGATIVE, POSITIVE

FED = ("verbatim", "template")
POSITIVES, NEGATIVES = (*FED, "paraphrase"), ("general", "control", "unseen")
NAMES = {  # of the methods in what is stored
    "default": "default",
    "author_compat": "author_compat",
    "iso": "iso (= Wen)",
    "aniso": "aniso per pixel",
    "aniso_flat": "aniso flattened",
}
Scores = dict[str, NDArray[np.float64]]


def scores(
    denoiser: Any, captions: list[Caption], calibration: Calibration, draws: int, seed: int, slow: bool
) -> Scores:
    """Returns each method's scores, higher = more likely memorized, on the same noise."""
    condition = denoiser.encode([c.text for c in captions])
    shape = denoiser.latent_shape()
    noise = private_noise(denoiser, range(len(captions)), draws, seed, shape)
    measured = measure(denoiser, condition, noise).scores(calibration.combination)
    found = {NAMES[key]: values for key, values in measured.items()}
    if slow:
        found["Jeon sharpness"] = sharpness(denoiser, condition, noise=noise)
    return {name: values.double().numpy() for name, values in found.items()}


def benign(rates: dict[str, dict[str, float]]) -> list[Caption]:
    """Returns the captions of the calibration split, less those that were seen to reproduce."""
    return [c for c in true_kinds("calibration", rates)[0] if c.kind in NEGATIVES]


def benign_calibration(denoiser: Any, captions: list[Caption], draws: int, seed: int) -> Calibration:
    """Returns a calibration on benign captions."""
    return calibrate(denoiser, denoiser.encode([c.text for c in captions]), draws=draws, seed=seed)


def pairs(found: Scores, captions: list[Caption]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns AUC and TPR@1%FPR of every method for every positive x negative kind."""
    kinds = np.array([c.kind for c in captions])
    result: dict[str, dict[str, dict[str, float]]] = {}
    for method, values in found.items():
        for positive in POSITIVES:
            for negative in NEGATIVES:
                p, n = values[kinds == positive], values[kinds == negative]
                if len(p) and len(n):
                    result.setdefault(f"{positive} / {negative}", {})[method] = {
                        "auc": stands_out(p, n),
                        "tpr": float(tpr_at_fpr(p, n)),
                    }
    return result


def mean_of(runs: list[Any]) -> Any:
    """Returns the mean over runs of equally nested dictionaries of numbers."""
    if isinstance(runs[0], dict):
        return {k: mean_of([r[k] for r in runs]) for k in runs[0]}
    return float(np.mean(runs))


def evaluate(denoiser: Any, captions: list[Caption], normal: list[Caption], draws: int, seeds: int) -> dict[str, Any]:
    """Returns the mean over noise seeds, and the false-alarm rate at alpha .01 by kind."""
    runs, alarms = [], []
    for seed in range(1, seeds + 1):
        calibration = benign_calibration(denoiser, normal, draws, 100 + seed)
        found = scores(denoiser, captions, calibration, draws, seed, slow=True)
        runs.append(pairs(found, captions))
        alarms.append(flagged(found, captions, calibration))
    return {"pairs": mean_of(runs), "flagged_at_alpha_.01": mean_of(alarms)}


def flagged(found: Scores, captions: list[Caption], calibration: Calibration) -> dict[str, float]:
    """Returns the share of each kind that the default score calls memorized."""
    kinds = np.array([c.kind for c in captions])
    above = found["default"] > calibration.threshold
    return {kind: float(above[kinds == kind].mean()) for kind in (*POSITIVES, *NEGATIVES) if (kinds == kind).any()}


def true_kinds(split: str, rates: dict[str, dict[str, float]]) -> tuple[list[Caption], dict[str, int]]:
    """Returns captions of the split by what they really do, and how many of each kind were set apart as in between.

    Unseen captions that reproduce (a word of theirs calls up another caption's image) become the kind "paraphrase".
    """
    return by_truth(select(split=split), rates)


def by_truth(captions: list[Caption], rates: dict[str, dict[str, float]]) -> tuple[list[Caption], dict[str, int]]:
    """Returns what `true_kinds` does, of these captions."""
    kept, apart = [], dict.fromkeys(KINDS, 0)
    for caption in captions:
        rate = rates[caption.kind].get(caption.text, 0.0)  # general captions beyond those sampled count as clear
        if caption.kind == "unseen" and rate >= POSITIVE:
            kept.append(replace(caption, kind="paraphrase"))
        elif (rate >= POSITIVE) if caption.kind in FED else (rate <= NEGATIVE):
            kept.append(caption)
        else:
            apart[caption.kind] += 1
    return kept, apart


def along_training(
    folder: Path, truth: dict[str, Any], negatives: list[Caption], normal: list[Caption]
) -> dict[str, Any]:
    """Returns for each checkpoint how much it reproduces, and how well all fed captions, and the reproduced ones, stand
    out."""
    curve = {}
    fed = [c for kind in FED for c in select(kind, "eval")]
    captions = fed + negatives
    for checkpoint in sorted(folder.iterdir()):
        denoiser = to_denoiser(load_folder(WEIGHTS, checkpoint))
        rates = truth[checkpoint.name]
        reproduces = [c.kind in NEGATIVES or rates[c.kind][c.text] >= POSITIVE for c in captions]
        calibration = benign_calibration(denoiser, normal, 4, 101)
        found = scores(denoiser, captions, calibration, 4, 1, slow=False)
        kept = [c for c, fine in zip(captions, reproduces, strict=True) if fine]
        curve[checkpoint.name] = {
            "recitation": {k: float(np.mean(list(rates[k].values()))) for k in FED},
            "captions_reciting": len(kept) - len(negatives),
            "flagged_at_alpha_.01": flagged(found, captions, calibration),
            "all_fed_captions": pairs(found, captions),
            "reciting_captions": pairs({name: values[reproduces] for name, values in found.items()}, kept),
        }
        print(checkpoint.name, curve[checkpoint.name]["recitation"], curve[checkpoint.name]["flagged_at_alpha_.01"])
    return curve


def main() -> None:
    options = arguments(
        __doc__,
        checkpoints={"type": Path, "default": None, "help": "measure training's checkpoints instead"},
        seeds={"type": int, "default": 3},
    )
    torch.set_grad_enabled(False)
    truth = stored("demo_model")
    captions, apart = true_kinds("eval", truth["by_caption"])
    normal = benign(truth["by_caption"])
    if options.checkpoints:
        negatives = [c for c in captions if c.kind in NEGATIVES]
        curve = along_training(options.checkpoints, stored("demo_checkpoints"), negatives, normal)
        store("detection_checkpoints", curve, by="detection")
        return
    kept = {k: sum(c.kind == k for c in captions) for k in (*POSITIVES, *NEGATIVES)}
    print("captions:", kept, "set apart:", apart)
    document: dict[str, Any] = {"kept": kept, "set_apart": apart, "noise_seeds": options.seeds}
    denoiser = to_denoiser(load_demo())
    for draws in (1, 4):
        found = evaluate(denoiser, captions, normal, draws, options.seeds)
        document[f"n={draws}"] = found
        print(f"\nn = {draws}: AUC / TPR@1%FPR; flagged at alpha .01: {found['flagged_at_alpha_.01']}")
        methods = list(next(iter(found["pairs"].values())))
        rows = [
            [pair, *(f"{v['auc']:.3f}/{v['tpr']:.2f}" for v in row.values())] for pair, row in found["pairs"].items()
        ]
        table(["positive / negative", *methods], rows)
    store("detection", document)


if __name__ == "__main__":
    main()
