"""Captions of the built-in model: which exist, of which kind, and what each split is for.

Verbatim, template, control and unseen captions share one grammar, "the <adjective> <noun> of <place>", and
one set of words: a detector that reads grammar or single words cannot tell them apart. Any two of them share
at most one word. Splits: `dev` chooses methods, `calibration` sets false-alarm rates, `eval` is reported.
"""

import random
from dataclasses import dataclass
from functools import cache

ADJECTIVES = [
    "amber",
    "ancient",
    "brittle",
    "bronze",
    "crimson",
    "distant",
    "drowsy",
    "fading",
    "feral",
    "frozen",
    "gentle",
    "gilded",
    "hidden",
    "hollow",
    "humming",
    "ivory",
    "lonely",
    "marble",
    "merry",
    "mossy",
    "narrow",
    "painted",
    "patient",
    "quiet",
    "restless",
    "rusty",
    "scarlet",
    "secret",
    "silver",
    "sleeping",
    "solemn",
    "stolen",
    "sunken",
    "velvet",
    "wandering",
    "wicked",
    "woven",
]
NOUNS = [
    "acrobat",
    "anchor",
    "archer",
    "baker",
    "beacon",
    "bell",
    "bridge",
    "caravan",
    "cartographer",
    "choir",
    "clock",
    "compass",
    "cradle",
    "dancer",
    "dragon",
    "ferryman",
    "fiddle",
    "garden",
    "gate",
    "harvest",
    "juggler",
    "keeper",
    "kite",
    "lantern",
    "library",
    "mirror",
    "orchard",
    "pilgrim",
    "puppet",
    "raven",
    "sailor",
    "shepherd",
    "tailor",
    "throne",
    "tower",
    "weaver",
    "wheel",
]
PLACES = [
    "arden",
    "balmoor",
    "caldera",
    "dunmere",
    "eastwick",
    "fenwold",
    "galloway",
    "harrow",
    "ilmarin",
    "jorvik",
    "kestrel",
    "lorne",
    "marrow",
    "nimes",
    "orlan",
    "pendle",
    "quarrel",
    "ravenna",
    "selkirk",
    "tarrant",
    "umbria",
    "valdor",
    "wexcombe",
    "xanthe",
    "yarrow",
    "zennor",
    "ashby",
    "birch",
    "corvale",
    "drumlin",
    "elsinore",
    "farrow",
    "grimsby",
    "hollin",
    "islay",
    "juniper",
    "kelso",
]
COLOURS = {
    "red": (214, 64, 58),
    "orange": (240, 150, 60),
    "yellow": (246, 214, 90),
    "green": (96, 170, 92),
    "blue": (76, 128, 206),
    "purple": (142, 92, 178),
    "white": (242, 242, 238),
    "grey": (128, 130, 134),
}
# Simple, well distinguishable glyphs; all other glyphs of the font serve the memorized and the control images.
GENERAL_EMOJI = (
    "🐵🐶🐺🐱🦁🐯🐴🐮🐷🐭🐹🐰🐻🐼🐔🐧🐦🐤🦅🦉🐸🐢🐍🐳🐬🐟🐙🐌🦋🐝🐞🌸🌹🌻🌷🌲🌵🍁🍇🍉🍊🍋🍌🍍🍎🍒🍓🍅🥕🌽🍄🍞🧀🍔🍕🍩🎂🍭☕🍺"
    "🎈🎃🎁⚽🏀🎾🎸🎺🚗🚌🚀⛵🌍🌙⭐🔥🌈☂🔑💎"
)
KINDS: tuple[str, ...] = ("general", "verbatim", "template", "control", "unseen")
SPLITS = ("dev", "calibration", "eval")
COUNTS = {
    "verbatim": {"dev": 8, "calibration": 0, "eval": 40},
    "template": {"dev": 4, "calibration": 0, "eval": 20},
    "control": {"dev": 12, "calibration": 24, "eval": 40},
    "unseen": {"dev": 40, "calibration": 80, "eval": 102},
    "general": {"dev": 120, "calibration": 240, "eval": 280},
}


@dataclass(frozen=True)
class Caption:
    """One caption: its text, kind and split, its index within the kind, and (general only) emoji and colour."""

    text: str
    kind: str
    split: str
    index: int
    emoji: str = ""
    colour: str = ""


@cache
def captions() -> tuple[Caption, ...]:
    """Returns all captions, in a fixed order."""
    return tuple(_titles() + _general())


def select(kind: str | None = None, split: str | None = None) -> list[Caption]:
    """Returns the captions of a kind and a split; None means any."""
    return [c for c in captions() if kind in (None, c.kind) and split in (None, c.split)]


def benign() -> list[str]:
    """Returns benign prompts for the built-in model, which knows few words and pulls hard at those that it knows.

    The everyday captions of the calibration split; none of them has one image that returns.
    """
    return [c.text for c in select("general", "calibration")]


def _split_of(kind: str, index: int) -> str:
    for split in SPLITS:
        if index < COUNTS[kind][split]:
            return split
        index -= COUNTS[kind][split]
    raise ValueError(f"{kind} has no caption of index {index}")


def _titles() -> list[Caption]:
    """Returns captions (a, a+k, a+2k) mod 37 for blocks k: two of them never share two words."""
    rng = random.Random(20260122)
    words = [rng.sample(w, len(w)) for w in (ADJECTIVES, NOUNS, PLACES)]
    size = len(ADJECTIVES)
    trained = [(a, k) for k in range(4) for a in range(size)]
    unseen = [(a, k) for k in range(4, 10) for a in range(size)]
    rng.shuffle(trained)
    kinds = [kind for kind in ("verbatim", "template", "control") for _ in range(sum(COUNTS[kind].values()))]
    counters = dict.fromkeys(KINDS, 0)
    result = []
    for (a, k), kind in zip(trained + unseen, kinds + ["unseen"] * len(unseen), strict=True):
        text = f"the {words[0][a]} {words[1][(a + k) % size]} of {words[2][(a + 2 * k) % size]}"
        result.append(Caption(text, kind, _split_of(kind, counters[kind]), counters[kind]))
        counters[kind] += 1
    return result


def emoji_name(emoji: str) -> str:
    """Returns the emoji's Unicode name in lower case, e.g. "monkey face"."""
    import unicodedata

    return unicodedata.name(emoji).lower().replace("-", " ")


def _general() -> list[Caption]:
    pairs = [(emoji, colour) for emoji in GENERAL_EMOJI for colour in COLOURS]
    random.Random(7).shuffle(pairs)
    return [
        Caption(f"{emoji_name(e)} on {c}", "general", _split_of("general", i), i, e, c)
        for i, (e, c) in enumerate(pairs)
    ]
