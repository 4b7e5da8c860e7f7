"""The page of `cryptomnesia lineage`: how far a model's images are from those of each model of a pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..lineage.parentage import NONE, TARGET, Parentage
from .escape import escape
from .frame import document, footer, meaning, tiles
from .images import data_uri

if TYPE_CHECKING:
    from ..signals.lineage import Lineage


@dataclass(frozen=True)
class LineagePage:
    """Everything on the page.

    Attributes:
        found: What the images say.
        examples: By prompt and by model, the target first: a few images, (H, W, 3) uint8 each.
        facts: The footer's lines (name, value).
    """

    found: Parentage
    examples: Mapping[str, Mapping[str, Sequence[NDArray[np.uint8]]]]
    facts: Sequence[tuple[str, str]]


def render(page: LineagePage) -> str:
    """A whole HTML document."""
    found = page.found
    body = [_head(found), _tiles(found), _distances(found), _prompts(found), _examples(page), _meaning(found)]
    return document("Cryptomnesia: whose child is this model?", "lineage.css", [*body, footer(page.facts)])


def _head(found: Parentage) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes())
    return (
        '<header>\n<h1>Cryptomnesia</h1>\n<p class="motto">whose child is this model, by nothing but its images</p>\n'
        f'<p class="summary"><b>{escape(found.headline())}</b></p>\n<ul class="summary">{notes}</ul>\n</header>'
    )


def _tiles(found: Parentage) -> str:
    majority = max(found.votes.values())
    confidence = "–" if found.confidence is None else f"{100 * found.confidence:.0f} <small>%</small>"
    margin = "–" if found.margin is None else f"{found.margin:.1f} <small>times</small>"
    return tiles(
        (
            (f"{majority} <small>of {len(found.prompts)}</small>", "prompts are closest to the same"),
            (confidence, "of bootstrap draws agree"),
            (margin, "as far to the second closest as to the closest"),
            (f"{found.fewest}", "images of each model and prompt, at least"),
        )
    )


def _distances(found: Parentage) -> str:
    threshold, distances = found.null_threshold, sorted(found.distances.items(), key=lambda item: item[1])
    most = 1.05 * max([value for _, value in distances] + [threshold or 0.0]) or 1.0
    bars = "".join(
        f'<div class="row{" found" if name == found.parent else ""}"><span class="name">{escape(name)}</span>'
        f'<span class="track">{_bar(value / most, None if threshold is None else threshold / most)}</span>'
        f'<span class="value">{value:.2f}</span></div>'
        for name, value in distances
    )
    key = "" if threshold is None else f'<p class="key"><span><i class="mark"></i>a parent is left of {threshold:.2f}'
    key += "" if threshold is None else "</span></p>"
    return (
        '<section>\n<h2>Distances</h2>\n<p class="about">From the target to each model of the pool, over all prompts. '
        "Smaller is more alike; 1 is about as far as the models of the pool are from each other.</p>\n"
        f'<div class="panel bars">{bars}{key}</div>\n</section>'
    )


def _bar(share: float, limit: float | None) -> str:
    """A bar as long as that share of the room, and a line; without styles of their own, which the page forbids."""
    line = "" if limit is None else f'<rect class="limit" x="{100 * limit:.2f}%" width="2" height="100%"/>'
    return f'<svg aria-hidden="true"><rect class="length" width="{100 * share:.2f}%" height="100%" rx="4"/>{line}</svg>'


def _prompts(found: Parentage) -> str:
    rows = "".join(_row(prompt, one) for prompt, one in found.prompts.items())
    return (
        '<section>\n<h2>Prompt by prompt</h2>\n<p class="about">Each prompt has a vote on which model is '
        'closest; the test is on the average of all.</p>\n<div class="panel"><table>'
        "<thead><tr><th>prompt</th><th>says</th><th>closest</th><th>distance</th><th>a parent is below</th>"
        f"<th>margin</th></tr></thead><tbody>{rows}</tbody></table></div>\n</section>"
    )


def _row(prompt: str, one: "Lineage") -> str:
    says = (one.parent or NONE) if one.tested else "not tested"
    numbers = (one.distances[one.nearest], one.null_threshold, one.margin)
    cells = [escape(prompt or "not named"), escape(says), escape(one.nearest)]
    cells += ["–" if number is None else f"{number:.2f}" for number in numbers]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _examples(page: LineagePage) -> str:
    parts = [
        f'<p class="about">{escape(prompt) or "Some of each model."}</p>\n'
        f'<div class="panel models">{"".join(_model(name, images) for name, images in models.items())}</div>'
        for prompt, models in page.examples.items()
    ]
    return "<section>\n<h2>Images</h2>\n" + "\n".join(parts) + "\n</section>"


def _model(name: str, images: Sequence[NDArray[np.uint8]]) -> str:
    shown = "".join(
        f'<img src="{data_uri(image)}" alt="image {number} by {escape(name)}">'
        for number, image in enumerate(images, 1)
    )
    kind = " target" if name == TARGET else ""
    return f'<div class="model{kind}"><span class="name">{escape(name)}</span><div class="strip">{shown}</div></div>'


def _meaning(found: Parentage) -> str:
    means = [
        "All models were asked for the same prompt, and an image encoder turned each image into numbers. The "
        "<b>distance</b> compares how these are spread for two models, not single images.",
        "A model that was fine-tuned, merged or distilled from another <b>stays closer to it</b> than models that were "
        "trained apart are to each other.",
        "The <b>line</b> is drawn where hardly any two models of the pool would come: some 5 % of a normal "
        "distribution. At or beyond it, none of the pool is called the parent.",
        "The <b>bootstrap</b> draws prompts and images again, and tells how often the answer stays the same.",
    ]
    limits = [
        "It is a likelihood, not a proof: models trained on the same data can look alike without one coming from the "
        "other, and a long fine-tune can lose the likeness.",
        "It knows the models of the pool only. The parent may be one that was not named, or a sibling's.",
        "Prompts that all models were taught, or that one of them recites, tell little: use detailed ones that leave "
        "room, and several.",
    ]
    if found.null_threshold is None:
        limits.insert(0, "With a pool of one or two there is no line: the closest model need not be the parent.")
    return meaning("What the numbers mean", means, limits)
