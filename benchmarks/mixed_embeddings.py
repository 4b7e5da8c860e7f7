"""Are weakened embeddings seen? `python -m benchmarks.mixed_embeddings`, on the built-in model.

Captions that reproduce, and others, are given to an attached guard as embeddings, mixed with the empty prompt's or with
zeros. Reproduced: the share of captions of which at least half of the generations reproduce. Flagged as given: by the
embeddings as they are; flagged: by the guard, which judges weak ones at full strength, too.
"""

import warnings
from typing import Any

import torch

from cryptomnesia import Guard
from cryptomnesia.attached.strength import Strength
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.denoiser import Condition

from .common import arguments, store, table
from .mitigation import Bench

SHARES = (1.0, 0.7, 0.5, 0.3)
KINDS = ("verbatim", "template", "general", "control", "unseen")
MEMORIZED = ("verbatim", "template")
SEEDS = 2
MOST = {True: 20, False: 100}  # captions of a kind that is sampled, and of one that is only checked


def weakened(bench: Bench, captions: list[Caption], share: float, mixed: bool) -> torch.Tensor:
    """Returns (P, L, D): the captions' embeddings mixed with the empty prompt's, or with zeros."""
    text, empty = (
        bench.denoiser.encode([c.text for c in captions]).tensors["text"],
        bench.denoiser.empty.tensors["text"],
    )
    base = empty if mixed else torch.zeros_like(empty)
    return base + share * (text - base)


def flagged(bench: Bench, guard: Guard, texts: torch.Tensor) -> list[bool]:
    """Returns the verdicts of an attached guard, on one noise each."""
    empty, found = bench.denoiser.empty.tensors["text"], []
    with guard.attached():
        for rows in texts.split(20):
            generators = [torch.Generator().manual_seed(1000) for _ in rows]
            settings: dict[str, Any] = {"num_inference_steps": 1, "output_type": "latent", "generator": generators}
            negative = empty.expand(len(rows), -1, -1)
            out = bench.pipe(prompt_embeds=rows, negative_prompt_embeds=negative, **settings)
            found += [report.memorized for report in out.memorization]
    return found


def main() -> None:
    options = arguments(__doc__, split={"default": "eval", "help": "eval, or dev to try things"})
    warnings.simplefilter("ignore")
    bench = Bench(SEEDS)
    guard, plain = Guard(bench.pipe, bench.calibration), Guard(bench.pipe, bench.calibration)
    plain._attachment.memory.strength = _UnknownStrength()
    rows, found = [], []
    for kind in KINDS:
        captions = select(kind, options.split)[: MOST[kind in MEMORIZED]]
        for mixed in (True, False):
            for share in SHARES:
                texts = weakened(bench, captions, share, mixed)
                row: dict[str, Any] = {"kind": kind, "with": "empty" if mixed else "zeros", "share": share}
                row |= {"captions": len(captions), "reproduced": None}
                if kind in MEMORIZED:
                    made = [
                        bench.judge.own(c, bench.embedded(Condition(text=t[None])))
                        for c, t in zip(captions, texts, strict=True)
                    ]
                    row["reproduced"] = sum(part >= 0.5 for part in made) / len(made)
                row["flagged_as_given"] = sum(flagged(bench, plain, texts)) / len(texts)
                row["flagged"] = sum(flagged(bench, guard, texts)) / len(texts)
                found.append(row)
                rows.append(list(row.values()))
                print(row, flush=True)
    table(list(found[0]), rows)
    store("mixed_embeddings", {"split": options.split, "seeds": SEEDS, "rows": found})


class _UnknownStrength(Strength):
    """As if nothing were known of where prompts lie."""

    def sphere(self, denoiser: Any, host: Any) -> None:
        return None


if __name__ == "__main__":
    main()
