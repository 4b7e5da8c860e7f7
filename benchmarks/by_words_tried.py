"""Which rule takes words into account: `python -m benchmarks.by_words_tried --work WORK`, as `benchmarks.by_words`.

Rules are compared on development captions alone: the built-in model, its students and rectified flow, at one draw and
at four. Each tells from benign prompts' energies (n, 8) and text embeddings (n, D) what prompts score, and what each
benign prompt scores by the others. Stored is how far each lies ahead of the usual score, on average and at worst.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from cryptomnesia.demo.captions import Caption
from cryptomnesia.signals.memorization import MemorizationResult
from training.flow_captions import all_captions

from .by_words import DRAWS, FINAL, captions_of, measured, trials, truth_of
from .common import arguments, store, table
from .detection import NEGATIVES, POSITIVES, benign, mean_of, pairs
from .known_truth import FLOW, STUDENTS

ALPHA = 0.01
Numbers = NDArray[np.float64]
Scores = tuple[Numbers, Numbers]  # of the prompts that are asked about, and of the benign ones by the others


class Lot(NamedTuple):
    """Energies (P, 8) and embeddings (P, D) of length 1 about the benign mean: of prompts, and of benign ones."""

    energy: Numbers
    words: Numbers
    benign_energy: Numbers
    benign_words: Numbers

    @staticmethod
    def of(asked: MemorizationResult, normal: MemorizationResult) -> "Lot":
        centre = normal.words.double().mean(0)
        units = [torch.nn.functional.normalize(r.words.double() - centre).numpy() for r in (asked, normal)]
        return Lot(asked.spectrum.double().numpy(), units[0], normal.spectrum.double().numpy(), units[1])


Rule = Callable[[Lot], Scores]


def usual(lot: Lot) -> Scores:
    """Energies in units of the benign mean."""
    others = (lot.benign_energy.sum(0) - lot.benign_energy) / (len(lot.benign_energy) - 1)
    own = np.log((lot.energy / lot.benign_energy.mean(0)).sum(1))
    return own, np.log((lot.benign_energy / others).sum(1))


def steady(lot: Lot) -> Scores:
    """The same, each ring weighed by how little it varies among benign prompts about their mean over rings."""
    own, alone = (np.log(e / lot.benign_energy.mean(0)) for e in (lot.energy, lot.benign_energy))
    weights = 1 / (alone - alone.mean(1, keepdims=True)).var(0)
    weights /= weights.sum()
    return np.log(np.exp(own) @ weights), np.log(np.exp(alone) @ weights)


def nearest(count: int) -> Rule:
    """Energies in units of the mean of the benign prompts with the most similar words."""

    def rule(lot: Lot) -> Scores:
        alone = lot.benign_words @ lot.benign_words.T
        np.fill_diagonal(alone, -np.inf)

        def scores(energy: Numbers, similarity: Numbers) -> Numbers:
            closest = np.argsort(-similarity, 1, kind="stable")[:, :count]
            return np.log((energy / lot.benign_energy[closest].mean(1)).sum(1))

        return scores(lot.energy, lot.words @ lot.benign_words.T), scores(lot.benign_energy, alone)

    return rule


def added(first: Rule, second: Rule, weight: float) -> Rule:
    """A weighted sum of two rules."""

    def rule(lot: Lot) -> Scores:
        one, other = first(lot), second(lot)
        return one[0] + weight * other[0], one[1] + weight * other[1]

    return rule


def expected(share: float, ridge: float, base: Rule = usual, *, lower_only: bool = False) -> Rule:
    """A share of what ridge regression on the words expects is taken off, or only where it expects more than usual."""

    def rule(lot: Lot) -> Scores:
        own, alone = base(lot)
        inverse = np.linalg.inv(lot.benign_words @ lot.benign_words.T + ridge * np.eye(len(alone)))
        dual = inverse @ (alone - alone.mean())
        off = lot.words @ (lot.benign_words.T @ dual)
        off_alone = alone - alone.mean() - dual / np.diag(inverse)
        if lower_only:
            off, off_alone = np.maximum(off, 0), np.maximum(off_alone, 0)
        return own - share * off, alone - share * off_alone

    return rule


def groups(count: int, share: float) -> Rule:
    """A share of the median of the benign prompts in the same group of words, by k-means, is taken off."""

    def rule(lot: Lot) -> Scores:
        own, alone = usual(lot)
        found = KMeans(count, random_state=0).fit(lot.benign_words)
        medians = np.array([np.median(alone[found.labels_ == k]) for k in range(count)])
        return own - share * medians[found.predict(lot.words)], alone - share * medians[found.labels_]

    return rule


RULES: dict[str, Rule] = {
    **{f"nearest {k}": nearest(k) for k in (10, 20, 40)},
    **{f"usual + {w} nearest 20": added(usual, nearest(20), w) for w in (0.25, 0.5, 1.0)},
    **{
        f"expected, share {s}, ridge {r}": expected(s, r)
        for s in (0.25, 0.5, 1.0)
        for r in (0.3, 1.0, 3.0, 10.0, 100.0)
    },
    **{f"expected, lower only, share {s}": expected(s, 1.0, lower_only=True) for s in (0.25, 0.5, 1.0)},
    **{f"{k} groups, share {s}": groups(k, s) for k in (2, 3) for s in (0.25, 1.0)},
    "steady rings": steady,
    "steady rings, expected, share 0.25": expected(0.25, 1.0, steady),
    "steady rings, expected, lower only, share 0.5": expected(0.5, 1.0, steady, lower_only=True),
}


def tried(rule: Rule, lot: Lot, captions: list[Caption]) -> dict[str, float]:
    """Returns AUC and TPR at 1 % by pair, and the share of each kind that is flagged at alpha .01."""
    scores, alone = rule(lot)
    threshold = np.sort(alone)[::-1][int(ALPHA * (len(alone) + 1)) - 1]
    kinds = np.array([c.kind for c in captions])
    found = {
        f"{what} {pair}": value[what]
        for pair, ways in pairs({"rule": scores}, captions).items()
        for value in ways.values()
        for what in ("auc", "tpr")
    }
    shares = {k: float((scores[kinds == k] > threshold).mean()) for k in (*POSITIVES, *NEGATIVES) if (kinds == k).any()}
    return found | {f"flagged {kind}": share for kind, share in shares.items()}


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True})
    number = {c.text: i for i, c in enumerate(all_captions())}
    ahead: dict[str, dict[str, list[float]]] = {name: {} for name in RULES}
    usually: dict[str, list[float]] = {}
    for model in (FINAL, *STUDENTS, FLOW):
        answers, captions, normal = measured(model, options.work), captions_of(model, "dev"), benign(truth_of(model))
        for draws in (1, DRAWS):
            found: dict[str, list[dict[str, float]]] = {}
            for trial in trials(draws):
                asked, quiet = (answers.result([number[c.text] for c in lot], trial) for lot in (captions, normal))
                lot = Lot.of(asked, quiet)
                for name, rule in {"usual": usual, **RULES}.items():
                    found.setdefault(name, []).append(tried(rule, lot, captions))
            means = {name: mean_of(runs) for name, runs in found.items()}
            for key, value in means.pop("usual").items():
                usually.setdefault(key, []).append(value)
                for name, by_key in means.items():
                    ahead[name].setdefault(key, []).append(by_key[key] - value)
            print(model, draws, flush=True)
    summary = {
        name: {key: {"mean": float(np.mean(v)), "worst": float(np.min(v))} for key, v in by_key.items()}
        for name, by_key in ahead.items()
    }
    shown = (
        "auc verbatim / unseen",
        "auc template / general",
        "auc template / unseen",
        "flagged verbatim",
        "flagged template",
    )
    rows = [
        [n, *(f"{100 * s[k]['mean']:+.1f} ({100 * s[k]['worst']:+.1f})" for k in shown)] for n, s in summary.items()
    ]
    table(["points ahead, mean (worst)", *shown], rows)
    store(
        "by_words_tried",
        {"split": "dev", "usual": {k: float(np.mean(v)) for k, v in usually.items()}, "rules": summary},
    )


if __name__ == "__main__":
    main()
