"""What gradient norms add to the test of membership: `python -m benchmarks.membership_gradients WORK`.

The folder test with the method's statistic alone and with each layer's gradient norm learned beside it, on the same
random folders: power, and false alarms between folders that were both not trained on. How strongly a fit is held back
and what is expected before it was settled on the smaller fine-tune without captions and the LoRA with captions, as this
script's `--settle` shows; those two are marked. Measurements are kept in WORK, so that a stopped run goes on.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptomnesia.comparability import IMAGE_FEATURES, comparability
from cryptomnesia.membership import Measured, learned
from cryptomnesia.two_samples import auc, auc_interval, permutation_p, rank_sum_p

from .common import store, stored_models, table
from .membership_data import Model, features, sets

CASES = (("shallow-tuned", False), ("lora", True), ("lora", False), ("base", True), ("shallow-tuned", True))
SETTLED_ON = CASES[:2]
TIMES, DRAWS = (140,), 8
OTHERS = 40  # further images that were not trained on, beside the held-out twins; none of the built-in model's
SIZES, TRIALS, ALPHA, ROUNDS = (20, 70, 200), 60, 0.05, 499
KINDS = ("statistic", "gradients")
FITS = ((1.0, 0.0), (10.0, 0.0), (10.0, 0.1), (10.0, 0.2), (10.0, 0.4))  # penalty, and spread of what is expected


def measured(model: Model, prompted: bool) -> tuple[Measured, int]:
    """Images that the model was trained on, then others; and how many come first."""
    members, twins, others = sets(model.name)
    others = [] if model.name == "base" else others[:OTHERS]
    records = [*members, *twins, *others]
    method = "sima_relative" if prompted else "sima_mc"
    names = tuple(f"{record.caption.text} {record.rendering}" for record in records)
    return Measured(
        names,
        model.statistic(method, TIMES, DRAWS, prompted, records),
        features(records),
        names,
        {},
        1,
        gradients=np.concatenate(
            [model.gradients(TIMES, DRAWS, prompted, part) for part in (members, twins, others) if part]
        ),
    ), len(members)


def folders(images: Measured, members: int, size: int, trained: bool) -> Iterator[tuple[Any, Any]]:
    """Pairs of folders of that size: of members and others, or of others alone."""
    rng = np.random.default_rng(size)
    for _ in range(TRIALS):
        if trained:
            outside = rng.choice(np.arange(members, len(images)), size, replace=False)
            yield images.subset(rng.choice(members, size, replace=False)), images.subset(outside)
        else:
            rows = rng.permutation(np.arange(members, len(images)))
            yield images.subset(rows[:size]), images.subset(rows[size : 2 * size])


def shares(images: Measured, members: int, size: int, trained: bool) -> dict[str, dict[str, float]]:
    """By what is measured: of pairs of folders the share that is called likely, and by the p-value alone; mean AUC."""
    found: dict[str, list[tuple[bool, bool, float]]] = {kind: [] for kind in KINDS}
    for trial, (one, other) in enumerate(folders(images, members, size, trained)):
        alike = comparability(one.features, other.features, IMAGE_FEATURES, seed=trial).comparable
        low, high = one.statistic, other.statistic
        plain = max(permutation_p(low, high, trial, ROUNDS), rank_sum_p(low, high)), auc(low, high)
        pairs: Any = (one.gradients, other.gradients, low, high, one.features, other.features)
        result = learned.learn(*pairs, seed=trial, rounds=ROUNDS)
        learnt = max(result.permutation_p, result.rank_sum_p), auc(result.suspects, result.references)
        for kind, (p_value, value) in zip(KINDS, (plain, learnt), strict=True):
            alone = p_value <= ALPHA and value > 0.5
            found[kind].append((alone and alike, alone, value))
    return {
        kind: dict(zip(("likely", "p_value_alone", "auc"), np.mean(np.array(rows, float), 0).tolist(), strict=True))
        for kind, rows in found.items()
    }


def by_itself(images: Measured, members: int) -> dict[str, Any]:
    """AUC per image of the statistic, and of the mean norm, with and without what plain features explain."""
    norms: Any = images.gradients
    left = learned._unexplained(np.column_stack([norms, images.statistic]), images.features)
    columns = {
        "statistic": images.statistic,
        "mean norm": norms.mean(1),
        "statistic, plain features taken out": left[:, -1],
        "mean norm, plain features taken out": left[:, :-1].mean(1),
    }
    found = {}
    for name, values in columns.items():
        value = auc(values[:members], values[members:])
        found[name] = {"auc": value, "interval": auc_interval(value, members, len(images) - members)}
    return found


def case(model: Model, prompted: bool) -> dict[str, Any]:
    """All about one model, with captions or without."""
    images, members = measured(model, prompted)
    about: dict[str, Any] = {
        "members": members,
        "others": len(images) - members,
        "settled_on_this": (model.name, prompted) in SETTLED_ON,
        "trials": TRIALS,
        "per_image": by_itself(images, members),
    }
    for size in [size for size in SIZES if size <= min(members, about["others"])]:
        about.setdefault("power", {})[str(size)] = shares(images, members, size, True)
        if 2 * size <= about["others"]:
            about.setdefault("false_alarms", {})[str(size)] = shares(images, members, size, False)
    for what in ("power", "false_alarms"):
        said = {size: {kind: row["likely"] for kind, row in rows.items()} for size, rows in about.get(what, {}).items()}
        print(model.name, prompted, what, said, flush=True)
    return about


def settle(models: dict[str, Model]) -> None:
    """Prints power at 20 and 70 images of each way to fit, on the two cases that choose."""
    rows = []
    for penalty, expected in FITS:
        learned.PENALTY, learned.EXPECTED = penalty, expected
        row: list[Any] = [penalty, expected]
        for name, prompted in SETTLED_ON:
            images, members = measured(models[name], prompted)
            row += [shares(images, members, size, True)["gradients"]["p_value_alone"] for size in (20, 70)]
        rows.append(row)
    table(["penalty", "expected", *(f"{n} {p} {s}" for n, p in SETTLED_ON for s in (20, 70))], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--settle", action="store_true", help="only compare ways to fit, on the cases that choose")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    models = {name: Model(name, options.work) for name, _ in CASES}
    if options.settle:
        store(
            "membership_gradients_settled", {"columns": [*SETTLED_ON], "rows": settle(models)}, "membership_gradients"
        )
        return
    found = stored_models("membership_gradients")
    for name, prompted in CASES:
        key = f"{name}, {'captions' if prompted else 'no captions'}"
        if key not in found:
            found[key] = case(models[name], prompted)
            store("membership_gradients", {"alpha": ALPHA, "permutations": ROUNDS, "models": found})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
