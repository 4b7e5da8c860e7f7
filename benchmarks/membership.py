"""How well membership can be told: `python -m benchmarks.membership WORK`, WORK being where numbers are kept.

Every method has the same number of rows of the network per image. Its timesteps and draws are chosen on another model
and other images than those it is reported on. Members are positives.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia.benchmark.rates import tpr_at_fpr
from cryptomnesia.comparability import IMAGE_FEATURES, comparability
from cryptomnesia.demo.captions import select
from cryptomnesia.two_samples import auc, auc_interval, permutation_p, rank_sum_p
from training.demo.records import RENDERINGS, Record

from .common import store, table
from .membership_data import RELATIVE, Configuration, Model, configurations, features, sets

ROWS = 8
CHOSEN_ON = {
    "tuned": ("shallow-tuned",),
    "shallow-tuned": ("tuned",),
    "lora": ("tuned",),
    "base": ("tuned", "shallow-tuned"),
}
ALPHA = 0.05
SPLITS, TRIALS = 200, 200
SIZES = (20, 70, 100, 200)
Numbers = NDArray[np.float64]


def chosen(model: Model, models: dict[str, Model], method: str) -> Configuration:
    """The configuration with the best mean AUC on the models that it is chosen on, with prompts."""

    def quality(configuration: Configuration) -> float:
        found = []
        for name in CHOSEN_ON[model.name]:
            members, twins, _ = sets(name)
            values = models[name].statistic(method, *configuration, True, members + twins)
            found.append(auc(values[: len(members)], values[len(members) :]))
        return float(np.mean(found))

    return max(configurations(ROWS)[method], key=quality)


def accuracy(model: Model, models: dict[str, Model]) -> dict[str, Any]:
    """AUC and TPR at 1 % FPR of every method, with the true prompt and the empty one."""
    members, twins, _ = sets(model.name)
    found: dict[str, Any] = {}
    for method in configurations(ROWS):
        times, draws = chosen(model, models, method)
        row: dict[str, Any] = {"timesteps": times, "draws": draws, "rows": model.rows(method, times, draws)}
        for name, prompted in (("prompt", True), ("empty", False)):
            if method == RELATIVE and not prompted:
                continue
            values = model.statistic(method, times, draws, prompted, members + twins)
            ours, others = values[: len(members)], values[len(members) :]
            value = auc(ours, others)
            row[name] = {"auc": value, "interval": auc_interval(value, len(ours), len(others))}
            row[name]["tpr_at_1_percent_fpr"] = float(tpr_at_fpr(-ours, -others))  # members score low
        found[method] = row
    header = [f"{model.name}: {len(members)} members", "rows", "AUC, prompt", "TPR@1%", "AUC, empty", "TPR@1%", "t"]
    kinds = ("prompt", "empty")
    measures = ("auc", "tpr_at_1_percent_fpr")
    rows = [
        [m, r["rows"], *(r[k][x] if k in r else "-" for k in kinds for x in measures), r["timesteps"]]
        for m, r in found.items()
    ]
    table(header, rows)
    return found


def verdict(low: Numbers, high: Numbers, a: Numbers, b: Numbers, seed: int) -> tuple[bool, bool]:
    """Whether the test finds a difference, and whether the sets are comparable."""
    found = max(permutation_p(low, high, seed, rounds=999), rank_sum_p(low, high)) <= ALPHA
    return found, comparability(a, b, IMAGE_FEATURES, seed=seed).comparable


def shares(outcomes: list[tuple[bool, bool]]) -> dict[str, float]:
    """Of trials with each verdict, and what the p-value alone would have said."""
    found = np.array(outcomes)
    return {
        "likely": float((found[:, 0] & found[:, 1]).mean()),
        "confounded": float((~found[:, 1]).mean()),
        "p_value_alone": float(found[:, 0].mean()),
    }


def draws(first: int, second: int, size: int, trials: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Random rows of two sets."""
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        yield rng.choice(first, size, replace=False), rng.choice(second, size, replace=False)


def dataset_test(model: Model, models: dict[str, Model]) -> dict[str, Any]:
    """False alarms over random splits of non-members, and power, with prompts and without."""
    members, twins, others = sets(model.name)
    outside = twins + others
    seen, unseen = features(members), features(outside)
    found: dict[str, Any] = {"references": len(outside)}
    for name, method in (("prompt", RELATIVE), ("empty", "sima_mc")):
        times, count = chosen(model, models, method)
        values = model.statistic(method, times, count, method == RELATIVE, members + outside)
        ours, rest = values[: len(members)], values[len(members) :]
        false = []
        rng = np.random.default_rng(1)
        for trial in range(SPLITS):
            order = rng.permutation(len(rest))
            one, two = order[:70], order[70:140]
            false.append(verdict(rest[one], rest[two], unseen[one], unseen[two], trial))
        row: dict[str, Any] = {"method": method, "timesteps": times, "draws": count, "power": {}}
        row["false_alarms_at_70"] = shares(false)
        for size in SIZES:
            if size <= min(len(members), len(outside)):
                rows = enumerate(draws(len(ours), len(rest), size, TRIALS, size))
                hits = [verdict(ours[a], rest[b], seen[a], unseen[b], trial) for trial, (a, b) in rows]
                row["power"][str(size)] = shares(hits)
        found[name] = row
    for name in ("prompt", "empty"):
        power = {size: round(share["likely"], 3) for size, share in found[name]["power"].items()}
        print(f"{model.name}, {name}: false alarms {found[name]['false_alarms_at_70']['likely']:.3f}; power {power}")
    return found


def confounded(model: Model, models: dict[str, Model]) -> dict[str, Any]:
    """Sets that differ in kind: how often that is noticed, and what the p-value alone would have said."""
    members, twins, others = sets(model.name)
    times, count = chosen(model, models, "sima_mc")
    styled = [Record(caption, RENDERINGS["control"]) for caption in select("control")]
    cases = {
        "easier style, none trained on": (twins, None, styled),
        "harder style, none trained on": (styled, None, twins),
        "trained on, against a harder style": (members, None, styled),
        "JPEG 50, none trained on": (others, 50, twins),
        "JPEG 90, none trained on": (others, 90, twins),
        "trained on, JPEG 50": (members, 50, twins),
    }
    found: dict[str, Any] = {}
    for name, (suspects, quality, references) in cases.items():
        low = model.statistic("sima_mc", times, count, False, suspects, quality)
        high = model.statistic("sima_mc", times, count, False, references)
        own, theirs = features(suspects, quality), features(references)
        for size in (20, 70):
            rows = enumerate(draws(len(low), len(high), size, TRIALS, size))
            tried = [verdict(low[a], high[b], own[a], theirs[b], trial) for trial, (a, b) in rows]
            found.setdefault(name, {})[str(size)] = shares(tried)
    said = ("confounded", "p_value_alone")
    header = [f"{model.name}: sets of another kind", "noticed, 20", "p alone, 20", "noticed, 70", "p alone, 70"]
    table(header, [[name, *(case[size][k] for size in ("20", "70") for k in said)] for name, case in found.items()])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="*", default=list(CHOSEN_ON), choices=list(CHOSEN_ON))
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    options.work.mkdir(parents=True, exist_ok=True)
    models = {name: Model(name, options.work) for name in CHOSEN_ON}
    document: dict[str, Any] = {"rows": ROWS, "chosen_on": CHOSEN_ON, "alpha": ALPHA, "trials": TRIALS}
    document["images"] = {
        name: dict(zip(("members", "twins", "others"), map(len, sets(name)), strict=True)) for name in models
    }
    asked = [models[name] for name in options.models]
    document["accuracy"] = {model.name: accuracy(model, models) for model in asked}
    document["dataset_test"] = {model.name: dataset_test(model, models) for model in asked}
    document["confounded"] = confounded(asked[0], models)
    store("membership", document)


if __name__ == "__main__":
    main()
