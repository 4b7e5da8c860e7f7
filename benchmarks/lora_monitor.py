"""Does the monitor of a training ring when reproduction begins? `python -m benchmarks.lora_monitor --work WORK`.

WORK is the folder that `python -m training.zoo.series WORK` and `python -m benchmarks.lora_series WORK` filled. How
noisy the copies are, and how many held-out images may score as high, is chosen on the runs named dev-, and reported on
the others, whose captions and images are not theirs.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.calibration import conformal
from cryptomnesia.combination import Combination
from cryptomnesia.drawing import GROUND, INK, MARGIN, SOFT, STRONG, blank, write
from cryptomnesia.monitoring.judging import chance, level_of, most_allowed, scored
from cryptomnesia.monitoring.monitor import ALPHA, DRAWS, FRACTION, SIGNIFICANCE
from training.zoo.series import BATCH, EPOCH, RATE, RUNS, Run

from .common import arguments, store, stored, table
from .lora_series import FRACTIONS, HELD_OUT, SEEDS, epochs, measured

GUIDANCE_ALPHA, SPLITS = 0.01, 5000
HEIGHT, BARS, ALARM = 150, (214, 178, 120), (176, 62, 44)
TITLES = {"few": "8 images, shown 280 times", "many": "77 images, 29 times", "varied": "8 captions, ever new images"}
KEYS = ("alarm", "first_reproduction", "correlation", "flagged_at_the_end", "reproduced_at_the_end")


class Rule(NamedTuple):
    """How images are flagged: how noisy copies of them are, and how many held-out ones may score as high."""

    fraction: float
    alpha: float


RULES = [Rule(fraction, alpha) for fraction in FRACTIONS for alpha in (0.025, 0.05, 0.1)]
CHOSEN = Rule(FRACTION, ALPHA)


def found(run: Run, epoch: int, work: Path, fraction: float) -> tuple[Tensor, Tensor]:
    """Returns scores and p-values (P,) of a run's images."""
    rows = FRACTIONS.index(fraction)
    before, now = (measured(run, each, work) for each in (0, epoch))
    both = [torch.cat([each["trained"][rows], each["others"][rows]]) for each in (before, now)]
    return scored(both[0], both[1], before["trained"].shape[1])


def course(run: Run, work: Path, rule: Rule, limit: float) -> list[dict[str, Any]]:
    """Returns what the monitor says and what is reproduced, epoch by epoch; all seeds count for a caption."""
    rows = []
    for number, epoch in enumerate(epochs(), 1):
        scores, p_values = found(run, epoch, work, rule.fraction)
        flags = p_values <= rule.alpha
        p_value = chance(int(flags.sum()), len(flags), HELD_OUT, most_allowed(HELD_OUT, rule.alpha))
        distances = measured(run, epoch, work).get("distances")
        near = None if distances is None else distances < limit
        rows.append(
            {
                "epoch": epoch,
                "flagged": float(flags.double().mean()),
                "p_value": p_value,
                "took_off": p_value <= level_of(number, SIGNIFICANCE),
                "reproduced": None if near is None else float(near.double().mean()),
                "captions_reproduced": None if near is None else float(near.all(1).double().mean()),
                "scores": scores.tolist(),
                "distances": None if distances is None else distances.mean(1).tolist(),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns where the alarm rings and reproduction begins, and how scores and distances go together.

    The correlation is between the score of an image and the distance of generations to it, by ranks over all images
    and epochs after training began; negative = images with high scores come back.
    """
    alarm = next((row["epoch"] for row in rows if row["took_off"]), None)
    looked = [row for row in rows if row["reproduced"] is not None]
    begins = next((row["epoch"] for row in looked if row["captions_reproduced"] > 0), None)
    both = [(s, d) for row in looked[1:] for s, d in zip(row["scores"], row["distances"], strict=False)]
    ranks = np.array(both).argsort(0).argsort(0)
    return {
        "alarm": alarm,
        "first_reproduction": begins,
        "lead_epochs": None if alarm is None or begins is None else begins - alarm,
        "correlation": float(np.corrcoef(ranks.T)[0, 1]),
        "flagged_at_the_end": rows[-1]["flagged"],
        "reproduced_at_the_end": rows[-1]["reproduced"],
    }


def false_alarms(run: Run, work: Path) -> float:
    """Returns how often a whole training gives an alarm where held-out images are put in place of trained ones."""
    before = measured(run, 0, work)["others"][FRACTIONS.index(CHOSEN.fraction)]
    scores = []
    for epoch in epochs():
        now = measured(run, epoch, work)["others"][FRACTIONS.index(CHOSEN.fraction)]
        scores.append((before.log() - now.log()).numpy())
    rng, rung = np.random.default_rng(0), 0
    left = HELD_OUT - BATCH
    allowed = most_allowed(left, CHOSEN.alpha)
    likely = [chance(hits, BATCH, left, allowed) for hits in range(BATCH + 1)]
    for _ in range(SPLITS):
        order = rng.permutation(HELD_OUT)
        trained, others = (np.stack(scores)[:, rows] for rows in (order[:BATCH], order[BATCH:]))
        hits = (trained > np.sort(others, 1)[:, [-allowed]]).sum(1)
        rung += any(likely[count] <= level_of(i, SIGNIFICANCE) for i, count in enumerate(hits, 1))
    return rung / SPLITS


def guidance_flagged(run: Run, work: Path) -> float | None:
    """Returns the share of captions that a check by guidance flags after training, calibrated on the same weights."""
    last = measured(run, epochs()[-1], work)
    if "guidance_trained" not in last:
        return None
    benign, trained = last["guidance_everyday"], last["guidance_trained"]
    learned, own = Combination.learn(benign), []
    for i in range(len(benign)):
        rest = torch.cat([benign[:i], benign[i + 1 :]])
        own.append(Combination.learn(rest).score(benign[i : i + 1]))
    return float((conformal(torch.cat(own), learned.score(trained)) <= GUIDANCE_ALPHA).double().mean())


def picture(reported: dict[str, list[dict[str, Any]]]) -> Any:
    """Draws, run by run, the share that is flagged and the share of generations that are training images again."""
    side, room, top = 250, 210, 64
    image, draw = blank(MARGIN + len(reported) * side, top + HEIGHT + 64)
    write(
        draw,
        (MARGIN, 14),
        "LoRAs in training: training images flagged (line), generations that reproduce (bars)",
        15,
        INK,
    )
    for number, (name, rows) in enumerate(reported.items()):
        left, floor = MARGIN + number * side, top + HEIGHT
        draw.rectangle([left, top, left + room, floor], fill=GROUND)
        step = room / max(row["epoch"] for row in rows)
        for row in rows:
            if row["reproduced"] is not None:
                x = left + row["epoch"] * step
                draw.rectangle([x - 5, floor - row["reproduced"] * HEIGHT, x + 5, floor], fill=BARS)
        draw.line([(left + r["epoch"] * step, floor - r["flagged"] * HEIGHT) for r in rows], STRONG, width=3)
        off = next((row["epoch"] for row in rows if row["took_off"]), None)
        if off is not None:
            draw.line([(left + off * step, top), (left + off * step, floor)], ALARM, width=2)
            write(draw, (left + off * step + 4, top + 4), "alarm", 12, ALARM)
        write(draw, (left, floor + 8), "epoch 0", 12, SOFT)
        write(draw, (left + room, floor + 8), str(rows[-1]["epoch"]), 12, SOFT, "ra")
        write(draw, (left, floor + 28), TITLES[name.split("-")[0]], 13, INK)
        for share in (0, 1):
            write(draw, (left + room + 4, floor - share * HEIGHT), f"{share:.0%}", 10, SOFT, "lm")
    return image


def there(run: Run, work: Path) -> bool:
    """Returns whether a run was measured to its end."""
    return (work / "measured" / f"{run.name}-{epochs()[-1]:02d}.safetensors").exists()


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True}, picture={"type": Path})
    torch.set_num_threads(1)
    limit = stored("demo_model")["limits"]["verbatim"]
    runs = [run for run in RUNS if there(run, options.work)]
    chosen_on = [
        {"run": run.name, **rule._asdict(), **summary(course(run, options.work, rule, limit))}
        for rule in RULES
        for run in runs
        if run.split == "dev"
    ]
    table(["run", *Rule._fields, *KEYS], [[row[k] for k in ("run", *Rule._fields, *KEYS)] for row in chosen_on])
    reported = {run.name: course(run, options.work, CHOSEN, limit) for run in runs if run.split == "eval"}
    summaries = {name: summary(rows) for name, rows in reported.items()}
    for run in runs:
        if run.name in summaries:
            summaries[run.name]["false_alarms_of_held_out"] = false_alarms(run, options.work)
        if run.images == "few" and run.name in summaries:
            found_so = summaries.setdefault(run.name, {})
            found_so["guidance_flagged_at_the_end"] = guidance_flagged(run, options.work)
    shown = (*KEYS, "false_alarms_of_held_out", "guidance_flagged_at_the_end")
    table(["run", *shown], [[name, *(found.get(k) for k in shown)] for name, found in summaries.items()])
    for name, rows in reported.items():
        print(name)
        columns = ("epoch", "flagged", "took_off", "reproduced", "captions_reproduced")
        table([*columns], [[row[k] for k in columns] for row in rows])
    setting = {"batch": BATCH, "steps_per_epoch": EPOCH, "rate": RATE, "held_out": HELD_OUT, "draws": DRAWS}
    setting |= {"limit": limit, "seeds": SEEDS, "significance": SIGNIFICANCE}
    document = {"setting": setting, "chosen": CHOSEN._asdict(), "chosen_on": chosen_on}
    if options.picture:
        picture(reported).save(options.picture)
    store("lora_monitor", {**document, "summaries": summaries, "runs": reported})


if __name__ == "__main__":
    main()
