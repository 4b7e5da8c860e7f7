"""The page of `cryptomnesia demo`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..report import MemorizationReport
from .escape import escape
from .frame import BADGES, chart_panel, document, footer, look, meaning, p_text, tiles
from .images import data_uri
from .strip import Lane, Marker, chart

MISSED = "✗ missed: called clear, yet its image returned"


@dataclass(frozen=True)
class Card:
    """One prompt: its report, what training did with it, what came out, and the closest training image.

    Attributes:
        group: Key of the group it belongs to.
        kind: What training did with it, in words.
        images: What the model made, (S, H, W, 3) uint8.
        distances: Of each to its closest training image, root mean square in [0, 1].
        closest: The training image closest to any of them, (H, W, 4) uint8; transparent where it varied.
        closest_caption: The caption it was trained with.
        missed: Whether it was called clear although the one image that it was fed in training returned.
    """

    report: MemorizationReport
    group: str
    kind: str
    images: NDArray[np.uint8]
    distances: Sequence[float]
    closest: NDArray[np.uint8]
    closest_caption: str
    missed: bool = False


@dataclass(frozen=True)
class Group:
    """Prompts that belong together: a heading, a sentence about them, the chart's label."""

    key: str
    title: str
    about: str
    lane: str
    recited: bool


@dataclass(frozen=True)
class DemoPage:
    """Everything on the page; `facts` are the footer's lines (name, value)."""

    groups: Sequence[Group]
    cards: Sequence[Card]
    benign: Sequence[float]
    threshold: float
    alpha: float
    gallery_size: int
    scoring_seconds: float
    sampling_seconds: float
    facts: Sequence[tuple[str, str]]


def render(page: DemoPage) -> str:
    """A whole HTML document."""
    body = [_head(page), _tiles(page), _scores(page), *_groups(page), _meaning(page), footer(page.facts)]
    return document("Cryptomnesia: what this model recites", "demo.css", body)


def _head(page: DemoPage) -> str:
    count = len(page.cards)
    lines = (
        "An image model can learn a prompt by heart. Asked for it, the model recites a training image "
        "instead of making a new one.",
        f"Each of the {count} prompts below was judged <strong>before any image was made</strong>, from one look at "
        "pure noise: a prompt that was learned by heart pulls much harder on it than others do.",
        "Only then were the images made, so that you can see for yourself whether the warning was right.",
    )
    items = "".join(f'<li data-step="{i}">{line}</li>' for i, line in enumerate(lines, 1))
    return (
        "<header>\n<h1>Cryptomnesia</h1>\n"
        '<p class="motto">a forgotten memory that returns and is taken for a new idea</p>\n'
        f'<ol class="lead">{items}</ol>\n</header>'
    )


def _tiles(page: DemoPage) -> str:
    recited = {group.key for group in page.groups if group.recited}
    inside = [card.report.memorized for card in page.cards if card.group in recited]
    outside = [card.report.memorized for card in page.cards if card.group not in recited]
    images = sum(len(card.images) for card in page.cards)
    missed = sum(card.missed for card in page.cards)
    values = (
        (
            f"{sum(inside)} <small>of {len(inside)}</small>",
            f"prompts fed one image, flagged; {missed} missed" if missed else "prompts fed one image, flagged",
        ),
        (f"{sum(outside)} <small>of {len(outside)}</small>", "other prompts, flagged"),
        (f"{page.scoring_seconds:.1f} <small>s</small>", f"to judge {len(page.cards)} prompts, before sampling"),
        (f"{page.sampling_seconds:.0f} <small>s</small>", f"to make {images} images, afterwards"),
    )
    return tiles(values)


def _scores(page: DemoPage) -> str:
    lanes = [
        Lane(
            group.lane,
            [
                Marker(number, card.report.score, card.report.prompt or "", card.report.memorized)
                for number, card in enumerate(page.cards, 1)
                if card.group == group.key and card.report.score is not None
            ],
        )
        for group in page.groups
    ]
    svg = chart(page.benign, lanes, page.threshold, page.alpha)
    return (
        "<section>\n<h2>The scores, before sampling</h2>\n"
        '<p class="about">Each numbered mark is a prompt of this page; the histogram shows ordinary prompts that set '
        "the threshold and appear nowhere else.</p>\n"
        f"{chart_panel(svg)}\n</section>"
    )


def _groups(page: DemoPage) -> list[str]:
    numbered = list(enumerate(page.cards, 1))
    return [
        f'<section>\n<h2>{escape(group.title)}</h2>\n<p class="about">{escape(group.about)}</p>\n'
        + "\n".join(_card(number, card) for number, card in numbered if card.group == group.key)
        + "\n</section>"
        for group in page.groups
    ]


def _card(number: int, card: Card) -> str:
    report = card.report
    prompt = escape(report.prompt or "")
    figures = "".join(
        f'<figure><img src="{data_uri(image)}" alt="image {i} made for: {prompt}">'
        f'<figcaption title="distance to the closest training image">{distance:.3f}</figcaption></figure>'
        for i, (image, distance) in enumerate(zip(card.images, card.distances, strict=True), 1)
    )
    caption = escape(card.closest_caption)
    training = (
        f'<figure class="training" title="closest training image: {caption}"><img src="{data_uri(card.closest)}" '
        f'alt="closest training image: {caption}"><figcaption>closest trained</figcaption></figure>'
    )
    return (
        f'<article class="card {"missed" if card.missed else look(report.verdict)}" id="prompt-{number}"><div>'
        f'<h3 class="prompt"><span class="number">{number}.</span> {prompt}</h3>'
        f'<p class="kind">{escape(card.kind)}</p>'
        f'<span class="badge">{MISSED if card.missed else BADGES[report.verdict]}</span>'
        f'<p class="numbers">{_numbers(card)}</p></div>'
        f'<div class="pictures">{figures}{training}</div></article>'
    )


def _numbers(card: Card) -> str:
    report = card.report
    if report.score is None:
        return escape(report.reason or "")
    p_value = "" if report.p_value is None else f"p-value <b>{p_text(report.p_value)}</b> · "
    return f"{p_value}score <b>{report.score:.2f}</b> · closest <b>{min(card.distances):.3f}</b>"


def _meaning(page: DemoPage) -> str:
    count, rate = len(page.benign), f"{100 * page.alpha:g} %"
    means = (
        f"<b>Likely memorized</b>: at most {rate} of ordinary prompts score this high. That is the false-alarm rate. "
        f"It holds if your prompts are exchangeable with (of the same sort as) the {count} benign prompts of the "
        "calibration.",
        "The <b>p-value</b> is the share of benign prompts that score at least as high. "
        f"With {count} of them it cannot fall below {1 / (count + 1):.4f}.",
        "The <b>number under an image</b> is its distance to the closest of "
        f"{page.gallery_size} training images: root mean square over the pixels, 0 = identical. "
        "Where only a figure was fixed in training, only the figure is compared.",
    )
    not_means = (
        "It is a likelihood, not a proof: it does not say which image returns, "
        "nor what that means for anyone's rights.",
        "<b>Clear</b> is no guarantee: a prompt can be memorized and still score low.",
        "It speaks of one model at one image size. A fine-tune, a LoRA or a merge is another model, "
        "and needs a calibration of its own: <code>cryptomnesia calibrate</code>.",
    )
    return meaning("What the verdict means, and what it does not", means, not_means)
