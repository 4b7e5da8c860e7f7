"""Does the monitor of a training ring when reproduction begins? `python -m benchmarks.lora_monitor --work WORK`.

WORK is the folder that `python -m training.zoo.series WORK` and `python -m benchmarks.lora_series WORK` filled. How the
monitor judges is chosen on the runs named dev-, and reported on the others, whose captions and images are not theirs.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.calibration import conformal
from cryptomnesia.combination import Combination
from cryptomnesia.monitoring.judging import chance, level_of, most_allowed, scored
from cryptomnesia.monitoring.monitor import ALPHA, SIGNIFICANCE
from training.zoo.series import BATCH, EPOCH, RUNS, Run

from .common import arguments, store, stored, table
from .lora_series import DRAWS, epochs, measured

CHOSEN = {"draws": 4, "alpha": 0.01, "against": "benign captions of the moment"}
WAYS = ("benign captions of the moment", "each caption's own score before")
REPRODUCED = 2  # generations of two


class Rule(NamedTuple):
    """How captions are flagged."""

    draws: int
    alpha: float
    against: str


RULES = [Rule(draws, alpha, way) for draws in (1, DRAWS) for alpha in (0.01, 0.05) for way in WAYS]


def p_values(energies: dict[str, Tensor], first: dict[str, Tensor], rule: Rule) -> dict[str, Tensor]:
    """Returns p-values of the trained captions and of those that are like them, among everyday ones."""
    row = 0 if rule.draws == 1 else 1
    now, before = ({name: e[row] for name, e in each.items() if name != "distances"} for each in (energies, first))
    if rule.against == WAYS[0]:
        return {name: scored(now[name], now["everyday"])[1] for name in ("trained", "alike")}
    learned = Combination.learn(before["everyday"])
    rise = {name: learned.score(now[name]) - learned.score(before[name]) for name in now}
    return {name: conformal(rise["everyday"], rise[name]) for name in ("trained", "alike")}


def course(run: Run, work: Path, rule: Rule, limit: float) -> list[dict[str, Any]]:
    """Returns what the monitor says and what is reproduced, epoch by epoch."""
    first, rows = measured(run, 0, work), []
    at_first = (p_values(first, first, rule)["trained"] <= rule.alpha).tolist()
    for number, epoch in enumerate(epochs()):
        energies = measured(run, epoch, work)
        found = p_values(energies, first, rule)
        flags = (found["trained"] <= rule.alpha).tolist()
        newly = sum(flag and not before for flag, before in zip(flags, at_first, strict=True))
        benign = energies["everyday"].shape[1]
        p_value = chance(newly, len(flags), benign, most_allowed(benign, rule.alpha))
        near = energies["distances"] < limit if "distances" in energies else None
        rows.append(
            {
                "epoch": epoch,
                "flagged": sum(flags) / len(flags),
                "p_value": p_value,
                "took_off": number > 0 and p_value <= level_of(max(1, number), SIGNIFICANCE),
                "alike_flagged": float((found["alike"] <= rule.alpha).double().mean()),
                "reproduced": None if near is None else float(near.double().mean()),
                "captions_reproduced": None if near is None else float((near.sum(1) >= REPRODUCED).double().mean()),
                "by_caption": None
                if near is None
                else [[float(f), float(n.double().mean())] for f, n in zip(flags, near, strict=False)],
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns where the alarm rings and reproduction begins, and how the two shares go together."""
    alarm = next((row["epoch"] for row in rows if row["took_off"]), None)
    sampled_rows = [row for row in rows if row["reproduced"] is not None]
    begins = next((row["epoch"] for row in sampled_rows if row["captions_reproduced"] > 0), None)
    shares = np.array([[row["flagged"], row["reproduced"]] for row in sampled_rows])
    varies = len(shares) > 3 and bool((shares.std(0) > 0).all())
    return {
        "alarm": alarm,
        "first_reproduction": begins,
        "lead_epochs": None if alarm is None or begins is None else begins - alarm,
        "correlation": float(np.corrcoef(shares.T)[0, 1]) if varies else None,
        "flagged_at_the_end": rows[-1]["flagged"],
        "reproduced_at_the_end": rows[-1]["reproduced"],
        "alike_flagged_at_most": max(row["alike_flagged"] for row in rows),
    }


def there(run: Run, work: Path) -> bool:
    """Returns whether a run was measured to its end."""
    return (work / "measured" / f"{run.name}-{epochs()[-1]:02d}.safetensors").exists()


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True})
    torch.set_num_threads(1)
    limit = stored("demo_model")["limits"]["verbatim"]
    runs = [run for run in RUNS if run.images != "style" and there(run, options.work)]
    chosen_on = [
        {"rule": rule._asdict(), "run": run.name, **summary(course(run, options.work, rule, limit))}
        for rule in RULES
        for run in runs
        if run.split == "dev"
    ]
    keys = ["alarm", "first_reproduction", "correlation", "flagged_at_the_end", "alike_flagged_at_most"]
    table(
        ["run", "draws", "alpha", "against", *keys],
        [[r["run"], *r["rule"].values(), *(r[k] for k in keys)] for r in chosen_on],
    )
    rule = Rule(**CHOSEN)
    reported = {run.name: course(run, options.work, rule, limit) for run in runs if run.split == "eval"}
    summaries = {name: summary(rows) for name, rows in reported.items()}
    table(["run", *keys], [[name, *(s[k] for k in keys)] for name, s in summaries.items()])
    store(
        "lora_monitor",
        {
            "setting": {
                "batch": BATCH,
                "steps_per_epoch": EPOCH,
                "limit": limit,
                "alpha": ALPHA,
                "significance": SIGNIFICANCE,
            },
            "chosen": CHOSEN,
            "chosen_on": chosen_on,
            "summaries": summaries,
            "runs": reported,
        },
    )


if __name__ == "__main__":
    main()
