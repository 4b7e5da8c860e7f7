"""How often is a model given a parent that has none? `python -m benchmarks.lineage_unrelated WORK`.

Tiny models that have nothing to do with each other (`training.zoo.unrelated`), each asked about with pools of others;
children of theirs, whose pools hold the parent; and twins, which are no children but saw the images of a model of the
pool. The spread of distances between unrelated models is fitted on those whose names begin with "dev", and
reported on the others, on other prompts in other wordings, on the flow model with its children
(`training.flow_children`) and on the zoo's models from elsewhere, all on prompts that no earlier benchmark of lineage
used. WORK keeps images and
embeddings, so that a stopped run goes on. The rule that was the default before stands beside today's.
"""

import argparse
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import gammaln

from cryptomnesia.encoders import open_encoder
from cryptomnesia.lineage.multiscale import MultiScale
from cryptomnesia.lineage.parentage import NONE, decide
from cryptomnesia.signals import unrelated as statistics
from cryptomnesia.signals.lineage import Array, distances, judged, unrolled
from training.flow_children import NAMES as FLOW
from training.zoo import styles

from .attribution_images import tensors
from .common import store, table
from .lineage import OWN_DATA, SCALES
from .lineage_unrelated_images import IMAGES, ZOO, ZOO_DEV, embeddings, images, prompts

POOLS = (3, 4, 6)
TABLES = 4  # pools of a size for each target, drawn at random
FEWER = 15  # images
FORMER_SPREAD, FORMER_PAIRS = 0.35, 10


@dataclass(frozen=True)
class Case:
    """A target, a pool, and the model that it comes from or shares its images with, if that is in the pool."""

    kind: str
    target: str
    pool: tuple[str, ...]
    answer: str = NONE


def tiny(split: str) -> list[Case]:
    """Returns the cases of a split's tiny models."""
    every = [one for one in styles.models() if one.name.startswith(split)]
    alone = [one.name for one in every if one.parent is None and one.twin is None]
    found: list[Case] = []
    for size in POOLS:
        for one in every:
            kin = one.parent or one.twin
            kind = "child" if one.parent else "twin" if one.twin else "unrelated"
            found += [Case(kind, one.name, pool, kin or NONE) for pool in _pools(one.name, size, alone, kin)]
    return found


def _pools(target: str, size: int, names: Sequence[str], kin: str | None) -> Iterator[tuple[str, ...]]:
    """Different pools at random, with the kin first if there is one."""
    rng = np.random.default_rng(zlib.crc32(f"{target}/{size}".encode()))
    others = [name for name in names if name not in (target, kin)]
    seen = set()
    for _ in range(3 * TABLES):
        chosen = rng.choice(others, size - (kin is not None), replace=False)
        pool = (*([kin] if kin else []), *sorted(map(str, chosen)))
        if pool not in seen and len(seen) < TABLES:
            seen.add(pool)
            yield pool


def flow() -> list[Case]:
    """Returns cases about the flow model, its children and one that learned from its images, beside tiny models."""
    alone = [one.name for one in styles.models() if one.name.startswith("eval-0")]
    found = []
    for target in (*FLOW, "plain-again"):
        pools = list(_pools(target, 4, alone, None if target == "flow" else "flow"))
        kind = {"flow": "unrelated", "plain-again": "twin"}.get(target, "child")
        found += [Case(kind, target, pool, NONE if target == "flow" else "flow") for pool in pools]
    return found


def zoo() -> list[Case]:
    """Returns the cases of the zoo's models from elsewhere, as `benchmarks.lineage` has them."""
    kinds = {True: "unrelated", False: "child"}
    return [Case(kinds[case.answer == NONE], case.target, case.pool, case.answer) for case in OWN_DATA.cases()]


@cache
def tables(target: str, pool: tuple[str, ...], split: str, scales: int, count: int, work: Path) -> list[Array]:
    """Returns distances (m, m) by prompt; one scale is the first half of what two give. Kept in the folder."""
    name = f"{target}/{','.join(pool)}/{split}/{scales}/{count}"
    file = work / "tables" / f"{zlib.crc32(name.encode()):08x}.npy"
    if not file.exists():
        groups = [embeddings(model, split, work)[:, :count] for model in (target, *pool)]
        width = groups[0].shape[-1] // 2 * scales
        rows = [[group[number, :, :width] for group in groups] for number in range(len(groups[0]))]
        file.parent.mkdir(exist_ok=True)
        np.save(file, np.stack([distances(unrolled(row, list(pool))) for row in rows]))
    return list(np.load(file))


def today(found: Sequence[Array], pool: Sequence[str]) -> str:
    """Returns the default's decision."""
    counts = [IMAGES] * (len(pool) + 1)
    return decide(judged(np.mean(found, axis=0), pool, counts), [judged(one, pool, counts) for one in found])


def former(found: Sequence[Array], pool: Sequence[str]) -> str:
    """Returns the decision of the rule that was the default before.

    Distances relative to the arithmetic mean of both models' distances; a normal distribution of their logarithms, of a
    standard deviation that counts a constant as ten pairs; the same threshold for any number of candidates, and for
    models of the pool that are one.
    """
    whole = _formerly(np.mean(found, axis=0), pool)
    votes = Counter(_formerly(one, pool)[0] for one in found)
    (_, most), *others = votes.most_common(2)
    majority = votes[whole[0]] == most and not (others and others[0][1] == most)
    return whole[0] if whole[1] and majority else NONE


def _formerly(plain: Array, pool: Sequence[str]) -> tuple[str, bool]:
    """The nearest model that is kept, and whether it is a parent."""
    kept = list(range(1, len(plain)))
    while True:
        count, table = len(kept), plain[np.ix_([0, *kept], [0, *kept])]
        far = np.maximum(table[:, 1:].sum(1) / (count - np.array([0.0, *[1.0] * count])), 1e-9)
        logs = np.log(np.maximum(table / np.sqrt(np.outer(far, far)), 1e-9))
        nearest = int(np.argmin(logs[0, 1:]))
        if count < 3:
            return pool[kept[nearest] - 1], False
        pairs = {pair: logs[pair] for pair in combinations(range(1, count + 1), 2)}
        values = np.array(list(pairs.values()))
        weight = FORMER_PAIRS / (FORMER_PAIRS + len(values))
        sigma = np.sqrt((1 - weight) * values.var() + weight * FORMER_SPREAD**2)
        threshold = values.mean() - 1.64 * sigma
        closest = min(pairs, key=lambda pair: pairs[pair])
        if pairs[closest] >= threshold:
            return pool[kept[nearest] - 1], bool(logs[0, 1 + nearest] < threshold)
        del kept[closest[1] - 1]


RULES = {"today": today, "former": former}


def shares(cases: Sequence[Case], split: str, scales: int, work: Path, count: int = IMAGES) -> dict[str, Any]:
    """Returns by kind and number of candidates: how many cases there are, and by rule how often the answer was named,
    another model was, and how often none, or nothing was decided."""
    found: dict[str, Any] = {}
    for case in cases:
        by_prompt = tables(case.target, case.pool, split, scales, count, work)
        row = found.setdefault(f"{case.kind}, {len(case.pool)}", {"cases": 0})
        row["cases"] += 1
        for name, rule in RULES.items():
            said = rule(by_prompt, case.pool)
            counts = row.setdefault(name, {"the answer": 0, "another": 0, "none": 0})
            counts["none" if said not in case.pool else "the answer" if said == case.answer else "another"] += 1
            if name == "today" and said in case.pool and said != case.answer:
                mistakes = row.setdefault("taken for another's child", {})
                mistakes[f"{case.target}, {said}"] = mistakes.get(f"{case.target}, {said}", 0) + 1
    return found


def by_target(cases: Sequence[Case], split: str, scales: int, work: Path, rows: Sequence[int]) -> dict[str, Any]:
    """Returns by target, with its kin in the pool or without, what was named with some prompts alone, and how far away
    the nearest was on average."""
    found: dict[str, Any] = {}
    for case in cases:
        some = [tables(case.target, case.pool, split, scales, IMAGES, work)[row] for row in rows]
        whole = judged(np.mean(some, axis=0), case.pool, [IMAGES] * (len(case.pool) + 1))
        row = found.setdefault(
            f"{case.target}, {case.kind}",
            {"cases": 0, "the answer": 0, "another": 0, "nearest": [], "threshold": []},
        )
        said = today(some, case.pool)
        row["cases"] += 1
        row["the answer"] += said == case.answer != NONE
        row["another"] += said in case.pool and said != case.answer
        row["nearest"].append(min(whole.distances.values()))
        row["threshold"].append(whole.null_threshold or np.nan)  # a double that is left out may leave too few
    for row in found.values():
        row |= {key: round(float(np.nanmean(row[key])), 3) for key in ("nearest", "threshold")}
    return found


def fitted(found: Sequence[Array]) -> dict[str, float]:
    """Returns what of unrelated models' distances is likeliest: the spread of a pair, the degrees of freedom that it
    counts as, and the variance of what is a model's own by that of a pair. Restricted likelihood of each table."""

    def unlikely(logs: Array) -> float:
        own, squared, freedom = np.exp(logs)
        total = 0.0
        for one in found:
            count, upper = len(one), np.triu_indices(len(one), 1)
            pairs = len(upper[0])
            values = np.log(np.maximum(one[upper], statistics.LEAST * np.median(one[upper])))
            models = np.zeros((pairs, count))
            models[np.arange(pairs), upper[0]] = models[np.arange(pairs), upper[1]] = 1
            covariance = np.eye(pairs) + own * models @ models.T
            inverse = np.linalg.inv(covariance)
            mean = inverse.sum(0) @ values / inverse.sum()
            squares = (values - mean) @ inverse @ (values - mean)
            size = np.linalg.slogdet(covariance)[1] + np.log(inverse.sum())
            total -= gammaln((freedom + pairs - 1) / 2) - gammaln(freedom / 2) - size / 2
            total += (pairs - 1) / 2 * np.log(freedom * squared * np.pi)
            total += (freedom + pairs - 1) / 2 * np.log1p(squares / (freedom * squared))
        return total

    best = minimize(unlikely, np.log([1.0, 0.05, 5.0]), method="Nelder-Mead", options={"maxiter": 300})
    own, squared, freedom = np.exp(best.x)
    return {"spread": round(float(np.sqrt(squared)), 3), "pairs": round(float(freedom), 1), "own": round(float(own), 2)}


def fits(cases: Sequence[Case], split: str, work: Path) -> dict[str, Any]:
    """Returns the fit by scales, number of prompts and of images, of pools of four unrelated models."""
    alone = [case for case in cases if case.kind == "unrelated" and len(case.pool) == 4]
    found = {}
    for scales, some, count in ((1, 8, IMAGES), (2, 8, IMAGES), (1, 1, IMAGES), (1, 8, FEWER)):
        drawn = [tables(case.target, case.pool, split, scales, count, work) for case in alone]
        name = f"scales {scales}, {some} prompts, {count} images"
        found[name] = fitted([np.mean(rows[:some], axis=0) for rows in drawn])
    scratch = [case for case in zoo() if case.target in OWN_DATA.scratch]
    drawn = [tables(case.target, case.pool, ZOO_DEV[0], 1, IMAGES, work) for case in scratch]
    return {
        **found,
        f"zoodev: scales 1, 4 prompts, {IMAGES} images": fitted([np.mean(rows, axis=0) for rows in drawn]),
    }


def cost(work: Path) -> dict[str, float]:
    """Returns the milliseconds of CPU that an image costs to look at, at one scale and at two."""
    some, found = tensors(images("dev-00", "dev", work)[:4].reshape(-1, 64, 64, 3)), {}
    for name, scales in SCALES.items():
        encoder = MultiScale(open_encoder(), scales)
        encoder.encode(some[:8])
        began = time.process_time()
        encoder.encode(some)
        found[name] = round(1000 * (time.process_time() - began) / len(some), 2)
    return found


def shown(title: str, found: dict[str, Any]) -> None:
    """Prints the shares of a set of cases."""
    rows = []
    for kind, row in found.items():
        told = [f"{row[rule]['the answer']}/{row[rule]['another']}/{row[rule]['none']}" for rule in RULES]
        rows.append([kind, row["cases"], *told])
    table([title, "cases", *(f"{rule}: answer/another/none" for rule in RULES)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--dev", action="store_true", help="what is there to choose on, which is shown and not stored")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    work, chosen = options.work, tiny("dev")
    document: dict[str, Any] = {"prompts": {split: prompts(split) for split in ("dev", *ZOO_DEV, "eval", ZOO)}}
    document["fitted on dev"] = fits(chosen, "dev", work)
    document["milliseconds per image"] = cost(work)
    print(document["milliseconds per image"])
    for name, fit in document["fitted on dev"].items():
        print(name, fit)
    sets = {"dev": (chosen, "dev"), **{split: (zoo(), split) for split in ZOO_DEV}}
    if not options.dev:
        sets |= {"eval": (tiny("eval"), "eval"), "flow": (flow(), "eval"), ZOO: (zoo(), ZOO)}
    for name, (cases, split) in sets.items():
        for scales in (1, 2):
            found = document.setdefault(name, {})[f"scales {scales}"] = shares(cases, split, scales, work)
            shown(f"{name}, scales {scales}", found)
    if options.dev:
        return
    document["eval"][f"scales 1, {FEWER} images"] = shares(tiny("eval"), "eval", 1, work, FEWER)
    wordings = {"background with": range(4), "picture of": range(4, 8)}
    document["flow"]["by wording"] = {name: by_target(flow(), "eval", 1, work, rows) for name, rows in wordings.items()}
    for split in (*ZOO_DEV, ZOO):
        document[split]["by target"] = by_target(zoo(), split, 1, work, range(4))
    store("lineage_unrelated", document)


if __name__ == "__main__":
    main()
