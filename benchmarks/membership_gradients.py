"""What gradient norms add to the test of membership: `python -m benchmarks.membership_gradients WORK`.

The folder test with the method's statistic alone and with each layer's gradient norm learned beside it, on the same
random folders: power, and false alarms between folders that were both not trained on. How strongly a fit is held back
and what is expected before it was settled on the smaller fine-tune without captions and the LoRA with captions, as this
script's `--settle` shows; those two are marked. Measurements are kept in WORK, so that a stopped run goes on.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptomnesia.membership import LIKELY, Measured, Settings, compare, learned
from cryptomnesia.two_samples import auc, auc_interval

from .common import store, stored_models, table
from .membership_data import Model, features, sets

CASES = (("shallow-tuned", False), ("lora", True), ("shallow-tuned", True), ("lora", False), ("base", True))
SETTLED_ON = CASES[:2]
TIMES, DRAWS = (140,), 8
OTHERS = 40  # further images that were not trained on, beside the held-out twins
SIZES, TRIALS, ALPHA = (20, 70, 200), 100, 0.05
KINDS = ("statistic", "gradients")
FITS = ((1.0, 0.0), (10.0, 0.0), (10.0, 0.1), (10.0, 0.2), (10.0, 0.4))  # penalty, and spread of what is expected


def measured(model: Model, prompted: bool) -> tuple[Measured, int]:
    """Images that the model was trained on, then others; and how many come first."""
    members, twins, others = sets(model.name)
    records = [*members, *twins, *others[:OTHERS]]
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
            [model.gradients(TIMES, DRAWS, prompted, part) for part in (members, twins, others[:OTHERS])]
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


def share(images: Measured, members: int, size: int, trained: bool, kind: str) -> dict[str, float]:
    """Share of pairs that are called likely, and what the p-value alone would have said."""
    found = []
    for trial, sides in enumerate(folders(images, members, size, trained)):
        pair = sides if kind == "gradients" else [replace(side, gradients=None) for side in sides]
        how: Any = {"settings": Settings(features=kind), "fingerprint": "", "alpha": ALPHA, "seed": trial}
        result = compare(*pair, **how)
        found.append((result.verdict == LIKELY, result.p_value <= ALPHA, result.auc))
    likely, alone, value = np.mean(np.array(found, float), 0)
    return {"likely": float(likely), "p_value_alone": float(alone), "auc": float(value)}


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
        "per_image": by_itself(images, members),
    }
    for kind in KINDS:
        fits = [size for size in SIZES if size <= min(members, len(images) - members)]
        power = {str(size): share(images, members, size, True, kind) for size in fits}
        false = {str(size): share(images, members, size, False, kind) for size in fits if 2 * size <= about["others"]}
        about[kind] = {"power": power, "false_alarms": false}
        said = {size: row["likely"] for size, row in power.items()}
        print(
            model.name, prompted, kind, "power", said, "false", {s: r["likely"] for s, r in false.items()}, flush=True
        )
    return about


def settle(models: dict[str, Model]) -> list[list[Any]]:
    """Power at 20 and 70 images of each way to fit, on the two cases that choose."""
    rows = []
    for penalty, expected in FITS:
        learned.PENALTY, learned.EXPECTED = penalty, expected
        row: list[Any] = [penalty, expected]
        for name, prompted in SETTLED_ON:
            images, members = measured(models[name], prompted)
            row += [share(images, members, size, True, "gradients")["p_value_alone"] for size in (20, 70)]
        rows.append(row)
    table(["penalty", "expected", *(f"{n} {p} {s}" for n, p in SETTLED_ON for s in (20, 70))], rows)
    return rows


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
            store("membership_gradients", {"alpha": ALPHA, "trials": TRIALS, "rows": 3 * DRAWS, "models": found})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
