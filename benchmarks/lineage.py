"""Whose child is this model? `python -m benchmarks.lineage WORK`, on the zoo.

WORK keeps images and embeddings, so that a stopped run goes on where it was. Of the models that were trained from
scratch all but one are the pool, each being left out in turn. A fine-tune or LoRA has a parent if that is in the pool;
otherwise, and for the model that was left out, the right answer is none.

Two families: five models that were trained on data of their own, as unrelated models are, and four that share one
training set, whose images differ only in how the models err. All eight together are asked about, too. Children were
trained further on images of their parent's domain; two LoRAs teach another one. Dev prompts choose, eval prompts are
reported.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptomnesia.attribution.candidates import NONE
from cryptomnesia.encoders import open_encoder
from cryptomnesia.lineage.multiscale import MultiScale
from cryptomnesia.lineage.parentage import decide
from cryptomnesia.signals.lineage import Array, Lineage, distances, judged, unrolled

from .attribution_images import tensors, write
from .common import store, table
from .lineage_images import ASKED, CHANGES, PROMPTS, STRENGTHS, WORDINGS, changed, images_of

COUNTS = (0,) * 8  # of images, which decide nothing
IMAGES = {"dev": 60, "eval": 100}
CHANGED_IMAGES = 50  # of a target that was changed itself, or its prompt
TRIALS = {10: 10, 30: 10, 100: 1}
EARLY = PROMPTS["titles, dev"][3:5]  # for which there are images of that model
SCALES = {"one scale": (1,), "S2": (1, 2)}


@dataclass(frozen=True)
class Case:
    """A target, the pool that is asked about, and the right answer."""

    target: str
    pool: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Family:
    """Models from scratch, and children of theirs by their parents' names."""

    scratch: tuple[str, ...]
    parents: dict[str, str]

    def cases(self) -> list[Case]:
        """Returns all pools that lack one, with the children and the model that was left out."""
        cases = []
        for unseen in self.scratch:
            pool = tuple(name for name in self.scratch if name != unseen)
            for target in (*self.parents, unseen):
                parent = self.parents.get(target, "")
                cases.append(Case(target, pool, parent if parent in pool else NONE))
        return cases

    def changed(self) -> list[Case]:
        """Returns the cases of the children, and of the last model from scratch when it is the unseen one."""
        return [case for case in self.cases() if case.target in (*self.parents, self.scratch[-1])]


OWN_DATA = Family(
    ("base", "rings", "stripes", "dots", "checks"),
    {"tuned": "base", "lora": "base", "rings-tuned": "rings", "stripes-lora": "stripes"},
)
SHARED_DATA = Family(
    ("base", "shallow", "velocity", "outsider"), {"tuned": "base", "lora": "base", "shallow-tuned": "shallow"}
)
ARTIST = Family(OWN_DATA.scratch, {"rings-artist": "rings", "stripes-artist": "stripes"})
ALL = Family(tuple(dict.fromkeys(OWN_DATA.scratch + SHARED_DATA.scratch)), {**OWN_DATA.parents, **SHARED_DATA.parents})


class Embeddings:
    """Embeddings of the zoo's images, kept in a folder."""

    def __init__(self, work: Path):
        self.work = work
        self.encoder = open_encoder()

    def of(self, model: str, prompt: str, prompts: str, scales: str = "one scale", change: str = "clean") -> Array:
        """Returns (k, D) embeddings of a model's images of one prompt, after a change of the model, its prompt or its
        images."""
        name = "-".join((model, prompt, scales, change)).replace(" ", "_")
        file = self.work / f"embeddings-{name}.npz"
        if not file.exists():
            asked = change if change in ASKED else "clean"
            count = IMAGES[prompts.split(", ")[1]] if asked == "clean" else CHANGED_IMAGES
            images = images_of(model, prompt, self.work, count, asked)
            images = changed(images, change) if change in CHANGES else images
            write(file, values=MultiScale(self.encoder, SCALES[scales]).encode(tensors(images)))
        return np.load(file)["values"]


def pca(embeddings: Sequence[Array], names: Sequence[str], dimension: int) -> list[Array]:
    """Returns points of fewer dimensions, in place of Isomap."""
    from sklearn.decomposition import PCA

    points = PCA(dimension, svd_solver="full").fit_transform(np.concatenate(embeddings))
    return np.split(points, np.cumsum([len(rows) for rows in embeddings])[:-1])


def ask(
    embeddings: Embeddings,
    case: Case,
    prompt: str,
    prompts: str,
    *,
    k: int = 100,
    trial: int = 0,
    scales: str = "one scale",
    change: str = "clean",
    unroll: Callable[[Sequence[Array], Sequence[str], int], list[Array]] = unrolled,
    author_compat: bool = False,
) -> Array:
    """Returns the distances (m, m) by one prompt and k images of each model; the target, which is first, alone is
    changed."""
    rng = np.random.default_rng(trial)
    groups = [embeddings.of(case.target, prompt, prompts, scales, change)]
    groups += [embeddings.of(name, prompt, prompts, scales) for name in case.pool]
    # fewer dimensions than images, whatever k
    points = unroll([_drawn(rows, k, rng) for rows in groups], list(case.pool), min(10, k - 1))
    return distances(points, author_compat=author_compat)


def _drawn(rows: Array, k: int, rng: np.random.Generator) -> Array:
    return rows[np.sort(rng.permutation(len(rows))[:k])]


def accuracy(
    embeddings: Embeddings, prompts: str, cases: Sequence[Case], trials: int = 1, **options: Any
) -> dict[str, Any]:
    """Returns the shares that are right, of single prompts and of all together; of targets with a parent in the pool,
    and not."""
    right: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    for case in cases:
        kind = "null" if case.answer == NONE else "parent"
        for trial in range(trials):
            tables = [ask(embeddings, case, prompt, prompts, trial=trial, **options) for prompt in PROMPTS[prompts]]
            compat = bool(options.get("author_compat"))
            found = [judged(table, case.pool, COUNTS, author_compat=compat) for table in tables]
            said = [one.parent or NONE for one in found]
            whole = judged(np.mean(tables, axis=0), case.pool, COUNTS)
            together = Counter(said).most_common(1)[0][0] if compat else decide(whole, found)
            right.setdefault(f"{kind}, prompts", []).extend(word == case.answer for word in said)
            right.setdefault(f"{kind}, together", []).append(together == case.answer)
            if kind == "parent":
                right.setdefault("nearest, prompts", []).extend(one.nearest == case.answer for one in found)
            if trial == 0:
                details[f"{case.target} of {', '.join(case.pool)}"] = {"together": together, **_detail([*found, whole])}
    shares = {name: float(np.mean(values)) for name, values in sorted(right.items())}
    return {**shares, "decisions": {name: len(values) for name, values in sorted(right.items())}, "cases": details}


def _detail(found: Sequence[Lineage]) -> dict[str, Any]:
    """Returns details of single prompts and, last, of all together."""
    near = [sorted(one.distances.values()) for one in found]
    return {
        "closest": [one.nearest for one in found],
        "distance": [round(values[0], 3) for values in near],
        "second": [round(values[1], 3) for values in near],
        "threshold": [round(one.null_threshold or 0, 3) for one in found],
    }


def shown(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Prints a row for each result."""
    keys = ("nearest, prompts", "parent, prompts", "null, prompts", "parent, together", "null, together")
    table([title, *keys], [[name, *(found.get(key, float("nan")) for key in keys)] for name, found in results.items()])


def methods(embeddings: Embeddings, prompts: str, family: Family) -> dict[str, Any]:
    """Returns the accuracy on all cases by default, and with one part replaced."""
    ways: dict[str, dict[str, Any]] = {
        "default (Isomap, one scale)": {},
        "PCA in place of Isomap": {"unroll": pca},
        "S2, scales 1 and 2": {"scales": "S2"},
        "the paper's rule": {"author_compat": True},
        "the paper's rule, S2": {"author_compat": True, "scales": "S2"},
    }
    found = {name: accuracy(embeddings, prompts, family.cases(), **options) for name, options in ways.items()}
    shown(f"pools of {len(family.scratch) - 1} of {', '.join(family.scratch)} ({prompts})", found)
    return found


def pool_check(embeddings: Embeddings) -> dict[str, Any]:
    """Returns which models are left out of a pool that holds one twice: base again, and an early checkpoint of it."""
    again, early, scratch = [], [], SHARED_DATA.scratch
    for prompt in PROMPTS["natural, eval"]:
        groups = [embeddings.of(name, prompt, "natural, eval") for name in ("tuned", *OWN_DATA.scratch)]
        half = len(groups[1]) // 2
        twice = [groups[0], groups[1][:half], *groups[2:], groups[1][half:]]
        again.append(distances(unrolled(twice, [*OWN_DATA.scratch, "base again"])))
    for prompt in EARLY:
        groups = [embeddings.of(name, prompt, "titles, dev") for name in ("tuned", *scratch, "early")]
        early.append(distances(unrolled(groups, [*scratch, "early"])))
    tables = {"base again": (again, OWN_DATA.scratch), "early": (early, scratch)}
    return {
        name: judged(np.mean(tables_of, axis=0), [*names, name], COUNTS).dropped
        for name, (tables_of, names) in tables.items()
    }


def changes(embeddings: Embeddings, prompts: str) -> dict[str, Any]:
    """Returns the accuracy for models with data of their own, the target changed."""
    kinds = ["clean", "weight noise", *WORDINGS, *CHANGES]
    found = {kind: accuracy(embeddings, prompts, OWN_DATA.changed(), change=kind) for kind in kinds}
    shown(f"target changed ({prompts})", found)
    return found


def strengths(embeddings: Embeddings, prompts: str) -> dict[str, Any]:
    """Returns the accuracy for children that were taught another domain than their parent's, more and more of it."""
    cases = [case for case in ARTIST.cases() if case.target in ARTIST.parents]
    found = {kind: accuracy(embeddings, prompts, cases, change=kind) for kind in (*STRENGTHS, "clean")}
    shown(f"taught another domain ({prompts})", found)
    return found


def images(embeddings: Embeddings, prompts: str) -> dict[str, Any]:
    """Returns the accuracy for models with data of their own, with fewer images."""
    found = {f"k = {k}": accuracy(embeddings, prompts, OWN_DATA.cases(), trials, k=k) for k, trials in TRIALS.items()}
    shown(f"images per prompt ({prompts})", found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--split", default="eval", choices=IMAGES, help="dev: shown, but not stored")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    embeddings, split = Embeddings(options.work), options.split
    natural, titles = f"natural, {split}", f"titles, {split}"
    own = {
        "parents": OWN_DATA.parents,
        "methods": methods(embeddings, natural, OWN_DATA),
        "changes": changes(embeddings, natural),
    }
    shared: dict[str, Any] = {"parents": SHARED_DATA.parents, titles: methods(embeddings, titles, SHARED_DATA)}
    if split == "dev":
        return
    own["by_images"], own["strengths"] = images(embeddings, natural), strengths(embeddings, natural)
    shared[natural] = methods(embeddings, natural, SHARED_DATA)
    every = {"default": accuracy(embeddings, natural, ALL.cases())}
    shown(f"pools of {len(ALL.scratch) - 1}", every)
    document: dict[str, Any] = {"prompts": PROMPTS, "images_per_prompt": IMAGES, "own_data": own, "shared_data": shared}
    store("lineage", {**document, "all_models": every, "pool_check": pool_check(embeddings)})


if __name__ == "__main__":
    main()
