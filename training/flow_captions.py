"""Captions of the rectified-flow model: the built-in model's, several wordings of each, and a sealed set.

Nothing may be chosen, tuned or calibrated on captions of the split "sealed": they are for reports alone, of this model
and of later ones. They come from word combinations and colours that no other caption has, with images of their own
by the same rules: verbatim, template and control titles, titles never trained, and general captions.
"""

import random
from functools import cache

from cryptomnesia.demo.captions import (
    ADJECTIVES,
    COUNTS,
    GENERAL_EMOJI,
    NOUNS,
    PLACES,
    Caption,
    captions,
    emoji_name,
)

SEALED = "sealed"
SEALED_COUNTS = {"verbatim": 24, "template": 12, "control": 38, "unseen": 111, "general": 160}
SEALED_COLOURS = {"pink": (236, 130, 176), "brown": (134, 92, 62)}
FIRST_BLOCK = 10  # blocks below are the built-in model's, see captions._titles
# each equally often in training, for captions of every kind alike
TITLE_WORDINGS = (
    "the {a} {n} of {p}",
    "{a} {n} in {p}",
    "from {p}, a {n}, {a}",
    "{p}: picture of one {a} {n}",
)
GENERAL_WORDINGS = ("{e} on {c}", "{c} background with {e}", "picture of {e}, {c}")


@cache
def sealed_captions() -> tuple[Caption, ...]:
    """Returns the sealed captions, in a fixed order; their indices go on where the built-in model's end."""
    return tuple(_sealed_titles() + _sealed_general())


@cache
def all_captions() -> tuple[Caption, ...]:
    """Returns the built-in model's captions, then the sealed ones."""
    return (*captions(), *sealed_captions())


def select(kind: str | None = None, split: str | None = None) -> list[Caption]:
    """Returns the captions of a kind and a split; None means any kind, and any split but the sealed one."""
    splits = {c.split for c in captions()} if split is None else {split}
    return [c for c in all_captions() if kind in (None, c.kind) and c.split in splits]


def wordings(caption: Caption) -> tuple[str, ...]:
    """Returns all texts of a caption; the first is its `text`."""
    if caption.kind == "general":
        parts = {"e": emoji_name(caption.emoji), "c": caption.colour}
        return tuple(w.format(**parts) for w in GENERAL_WORDINGS)
    _, a, n, _, p = caption.text.split()
    return tuple(w.format(a=a, n=n, p=p) for w in TITLE_WORDINGS)


def _sealed_titles() -> list[Caption]:
    """Captions (a, a+k, a+2k) mod 37 of blocks k that are unused so far: no two captions share two words."""
    rng = random.Random(20260122)
    words = [rng.sample(w, len(w)) for w in (ADJECTIVES, NOUNS, PLACES)]  # as captions._titles shuffles them
    size = len(ADJECTIVES)
    kinds = [kind for kind, count in SEALED_COUNTS.items() for _ in range(count) if kind != "general"]
    pairs = [(a, FIRST_BLOCK + block) for block in range(len(kinds) // size) for a in range(size)]
    trained = len(kinds) - SEALED_COUNTS["unseen"]
    fed = pairs[:trained]
    random.Random(16).shuffle(fed)
    counters = {kind: sum(COUNTS[kind].values()) for kind in SEALED_COUNTS}
    result = []
    for (a, k), kind in zip(fed + pairs[trained:], kinds, strict=True):
        text = f"the {words[0][a]} {words[1][(a + k) % size]} of {words[2][(a + 2 * k) % size]}"
        result.append(Caption(text, kind, SEALED, counters[kind]))
        counters[kind] += 1
    return result


def _sealed_general() -> list[Caption]:
    first = sum(COUNTS["general"].values())
    pairs = [(emoji, colour) for emoji in GENERAL_EMOJI for colour in SEALED_COLOURS]
    return [Caption(f"{emoji_name(e)} on {c}", "general", SEALED, first + i, e, c) for i, (e, c) in enumerate(pairs)]
