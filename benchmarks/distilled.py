"""Memorization told on distilled models and on rectified flow, by reference: `python -m benchmarks.distilled`.

As `benchmarks.detection`, on models whose truth was measured anew (`benchmarks.known_truth_captions`): positives and
negatives are what each model itself reproduces, or does not. Every prompt has private noise; the calibration sees
captions of its own split only. The built-in model, the students' teacher, is measured on the same noise.
"""

from typing import Any

import torch

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, private_noise
from cryptomnesia.demo.captions import Caption
from cryptomnesia.reference import Reference
from cryptomnesia.signals.memorization import memorization_score

from .common import arguments, store, stored, stored_models, table
from .detection import NEGATIVES, POSITIVES, Scores, benign, benign_calibration, flagged, mean_of, pairs, true_kinds
from .known_truth import FLOW, NAMES, load

TEACHER = "teacher"
REFERENCES: dict[str, tuple[Reference, ...]] = {
    TEACHER: ("empty branch",),
    "scale-input": ("guidance scales", "empty prompt"),
    "scale-baked-in": ("empty prompt",),
    "four-steps": ("empty prompt",),
    FLOW: ("empty branch",),
}
DRAWS = {"four-steps": (1, 4, 16)}  # which answer with a whole sample, so that more may be needed
USUAL = (1, 4)
SHOWN = ("verbatim / general", "verbatim / control", "verbatim / unseen", "template / general", "template / control")


def scores(denoiser: Any, captions: list[Caption], calibration: Calibration, draws: int, seed: int) -> Scores:
    """Returns the default score and the norm alone, higher = more likely memorized, on the same noise."""
    condition = denoiser.encode([c.text for c in captions])
    noise = private_noise(denoiser, range(len(captions)), draws, seed, denoiser.latent_shape())
    measured = memorization_score(denoiser, condition, noise=noise, alignment=False)
    return {
        "default": calibration.score(measured).double().numpy(),
        "iso (= Wen)": measured.iso.double().numpy(),
    }


def evaluate(denoiser: Any, captions: list[Caption], normal: list[Caption], draws: int, seeds: int) -> dict[str, Any]:
    """Returns the mean over noise seeds of AUC and TPR for every pair of kinds, and what is flagged at alpha .01."""
    runs, alarms = [], []
    for seed in range(1, seeds + 1):
        calibration = benign_calibration(denoiser, normal, draws, 100 + seed)
        found = scores(denoiser, captions, calibration, draws, seed)
        runs.append(pairs(found, captions))
        alarms.append(flagged(found, captions, calibration))
    return {"pairs": mean_of(runs), "flagged_at_alpha_.01": mean_of(alarms)}


def distances(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float]:
    """Returns how far a student's AUC and flagged share fall behind the teacher's, at most over all pairs of kinds."""
    fed = [pair for pair in teacher["pairs"] if not pair.startswith("paraphrase") and pair in student["pairs"]]
    auc = [teacher["pairs"][pair]["default"]["auc"] - student["pairs"][pair]["default"]["auc"] for pair in fed]
    shares = [teacher["flagged_at_alpha_.01"][k] - student["flagged_at_alpha_.01"][k] for k in ("verbatim", "template")]
    return {"auc": max(auc), "flagged": max(shares)}


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 2},
        split={"default": "eval", "help": "captions to report on; dev to choose by"},
        only={"nargs": "*", "default": (TEACHER, *NAMES)},
    )
    torch.set_grad_enabled(False)
    truth = {TEACHER: stored("demo_model")["by_caption"]}
    truth |= {name: about["by_caption"] for name, about in stored("known_truth_captions")["models"].items()}
    models: dict[str, Any] = stored_models("distilled") if options.split == "eval" else {}
    for name in options.only:
        captions, apart = true_kinds(options.split, truth[name])
        normal = benign(truth[name])
        kept = {k: sum(c.kind == k for c in captions) for k in (*POSITIVES, *NEGATIVES)}
        models[name] = {"kept": kept, "set_apart": apart, "benign": len(normal)}
        print(f"\n{name}: {kept}, set apart: {apart}", flush=True)
        pipe = load_demo() if name == TEACHER else load(name)
        for reference in REFERENCES[name]:
            denoiser = to_denoiser(pipe, reference)
            found = {f"n={n}": evaluate(denoiser, captions, normal, n, options.seeds) for n in DRAWS.get(name, USUAL)}
            for n, about in found.items():
                print(reference, n, about["flagged_at_alpha_.01"], flush=True)
                if name != TEACHER and n in models.get(TEACHER, {}).get("empty branch", {}):
                    about["behind_the_teacher"] = distances(about, models[TEACHER]["empty branch"][n])
            rows = [[n, *(a["pairs"][pair]["default"]["auc"] for pair in SHOWN)] for n, a in found.items()]
            table([f"AUC, {reference}", *SHOWN], rows)
            models[name][reference] = found
        if options.split == "eval":
            store("distilled", {"noise_seeds": options.seeds, "models": models})


if __name__ == "__main__":
    main()
