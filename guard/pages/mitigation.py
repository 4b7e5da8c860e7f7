"""The page of `cryptomnesia rewrite`: prompts before and after they were mended, with what the model makes of both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..report import MemorizationReport
from .frame import BADGES, chart_panel, document, footer, look, meaning, p_text, tiles
from .images import data_uri
from .marks import Piece, marked
from .strip import Lane, Marker, chart

if TYPE_CHECKING:
    from ..mitigation.result import Method, Mitigation

ABOUT = {
    "rewrite": "Words that pull towards recitation were changed, as few as the test on fresh noise asked for.",
    "embed": "The words stay. What the text encoder makes of them was moved until the pull let go.",
    "reseed": "The prompt stays. Sampling starts from a noise, chosen among several, from which it pulls the least.",
}
HELD = {
    "rewrite": "on noise that it was not made with, the new prompt is clear and no longer pulls to the same image",
    "embed": "on noise that it was not made with, the moved embedding is clear and no longer pulls to the same image",
    "reseed": "on noise close to the chosen one, the prompt is clear",
}
CHANGES = {
    "drop": "dropped",
    "swap": "swapped",
    "insert": "inserted",
    "move": "moved",
    "reworded": "reworded",
}


@dataclass(frozen=True)
class Pictures:
    """Images (S, H, W, 3) uint8 of one side, and a few words under each."""

    images: NDArray[np.uint8]
    captions: Sequence[str]


@dataclass(frozen=True)
class Case:
    """One prompt: what the check said and, if it was mended, how, with images from both sides where there are any."""

    report: MemorizationReport
    mitigation: "Mitigation | None" = None
    before: Pictures | None = None
    after: Pictures | None = None

    @property
    def prompt(self) -> str:
        """As given."""
        return self.report.prompt or ""

    @property
    def numbers_before(self) -> tuple[float | None, float | None]:
        """p-value and score, on the same fresh noise as afterwards where the method is tested on that."""
        about = self.mitigation
        # a reseed is tested close to the chosen noise, which says nothing about any other
        if about is None or about.method == "reseed":
            return self.report.p_value, self.report.score
        return about.p_before, about.score_before

    @property
    def numbers_after(self) -> tuple[float | None, float | None]:
        """p-value and score; None if nothing was mended."""
        return (None, None) if self.mitigation is None else (self.mitigation.p_after, self.mitigation.score_after)


@dataclass(frozen=True)
class MitigationPage:
    """Everything on the page; `recall_limit` is what a method must not exceed, `facts` are the footer's lines."""

    cases: Sequence[Case]
    method: "Method"
    benign: Sequence[float]
    threshold: float
    alpha: float
    recall_limit: float
    facts: Sequence[tuple[str, str]]


def outcome(case: Case) -> str:
    """What came of one prompt, in one plain sentence."""
    about = case.mitigation
    if about is None:
        return "It is clear, so nothing was changed."
    if about.held:
        return f"It held: {HELD[about.method]}."
    stays = "The prompt stays as it was." if about.method == "rewrite" else "What was tried should not be relied on."
    return f"It did not hold: {about.reason}. {stays}"


def render(page: MitigationPage) -> str:
    """A whole HTML document."""
    cases = [_case(number, case, page) for number, case in enumerate(page.cases, 1)]
    body = [_head(page), *cases, _scores(page), _meaning(page), footer(page.facts)]
    return document("Cryptomnesia: prompts, mended", "mitigation.css", body)


def _head(page: MitigationPage) -> str:
    tried = [case.mitigation for case in page.cases if case.mitigation is not None]
    flagged, held = sum(case.report.memorized for case in page.cases), sum(about.held for about in tried)
    count = len(page.cases)
    words = f"{flagged} of {count} prompts {'was' if flagged == 1 else 'were'} found likely memorized, "
    if count == 1:
        words = f"The prompt was found {'likely memorized' if flagged else 'clear'}, "
    words += "before any image was made. "
    if tried:
        words += f"{ABOUT[page.method]} " + (f"{held} of {len(tried)} held." if len(tried) > 1 else "")
    return (
        '<header>\n<h1>Cryptomnesia</h1>\n<p class="motto">a prompt that would recite, before and after</p>\n'
        f'<p class="summary">{words}</p></header>'
    )


# --- one prompt ---


def _case(number: int, case: Case, page: MitigationPage) -> str:
    head = f'<h2><span class="number">{number}.</span> ' if len(page.cases) > 1 else "<h2>"
    title = "Clear" if case.mitigation is None else "Mended, and it held" if case.mitigation.held else "It did not hold"
    parts = [f"{head}{title}</h2>", f'<p class="about">{escape(outcome(case))}</p>', _sides(case)]
    if case.mitigation is not None:
        parts += [_facts(case.mitigation, page), _words(case.mitigation)]
    return f'<article id="prompt-{number}">' + "\n".join(parts) + "</article>"


def _sides(case: Case) -> str:
    about, report = case.mitigation, case.report
    rewritten = case.prompt if about is None or about.rewritten is None else about.rewritten
    old, new = marked(case.prompt, rewritten)
    badge = BADGES[report.verdict]
    sides = [_side("before", look(report.verdict), badge, _text(old, "del"), case.before, case.numbers_before)]
    if about is not None:
        verdict, words = ("clear", "✓ held on fresh noise") if about.held else ("memorized", "▲ did not hold")
        sides.append(_side("after", verdict, words, _text(new, "ins"), case.after, case.numbers_after))
    return f'<div class="sides">{"".join(sides)}</div>'


def _side(
    name: str,
    kind: str,
    badge: str,
    text: str,
    pictures: Pictures | None,
    numbers: tuple[float | None, float | None],
) -> str:
    p_value, score = numbers
    shown = [] if p_value is None else [f"p-value <b>{p_text(p_value)}</b>"]
    shown += [] if score is None else [f"score <b>{score:.2f}</b>"]
    figures = "" if pictures is None else _figures(name, pictures)
    return (
        f'<section class="side {kind}"><p class="label"><span class="which">{name}</span> '
        f'<span class="badge">{badge}</span></p><h3 class="prompt">{text}</h3>'
        f'<div class="pictures">{figures}</div><p class="numbers">{" · ".join(shown)}</p></section>'
    )


def _text(pieces: Sequence[Piece], tag: str) -> str:
    return "".join(f"<{tag}>{escape(p.text)}</{tag}>" if p.changed else escape(p.text) for p in pieces)


def _figures(name: str, pictures: Pictures) -> str:
    return "".join(
        f'<figure><img src="{data_uri(image)}" alt="{name}: {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in zip(pictures.images, pictures.captions, strict=True)
    )


def _facts(about: "Mitigation", page: MitigationPage) -> str:
    values = []
    if about.method != "reseed" and about.recall is not None and about.similarity is not None:
        limit = f"pull to the same image; {page.recall_limit:g} at most to hold"
        values += [
            (f"{about.recall:.2f}", limit),
            (f"{about.similarity:.2f}", "likeness of the two texts to the model"),
        ]
    rows = (f"{about.forward_rows}", "rows that the network was asked")
    return tiles([*values, rows, (f"{about.backward_rows}", "of them with a gradient")])


def _words(about: "Mitigation") -> str:
    if not about.words:
        return ""
    rows = "".join(
        f"<tr><td>{escape(change.word) or '–'}</td><td>{escape(change.became) or '–'}</td>"
        f"<td>{CHANGES[change.kind]}</td><td>{f'{change.significance:.3f}' if change.word else '–'}</td></tr>"
        for change in about.words
    )
    return (
        '<div class="panel"><table><thead><tr><th>word</th><th>became</th><th>change</th>'
        f"<th>significance</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


# --- all prompts ---


def _scores(page: MitigationPage) -> str:
    before = [(n, case, *case.numbers_before) for n, case in enumerate(page.cases, 1)]
    after = [(n, case, *case.numbers_after) for n, case in enumerate(page.cases, 1)]
    lanes = []
    for name, entries in (("Before", before), ("After", after)):
        marks = [
            Marker(n, score, case.prompt, p_value is not None and p_value <= page.alpha)
            for n, case, p_value, score in entries
            if score is not None
        ]
        if marks:
            lanes.append(Lane(name, marks))
    svg = chart(page.benign, lanes, page.threshold, page.alpha)
    return (
        '<section>\n<h2>The scores</h2>\n<p class="about">The histogram shows ordinary prompts, which set the '
        f"threshold; each numbered mark is a prompt of this page.</p>\n{chart_panel(svg)}\n</section>"
    )


def _meaning(page: MitigationPage) -> str:
    count, rate = len(page.benign), f"{100 * page.alpha:g} %"
    means = [
        f"The <b>p-value</b> is the share of {count} benign prompts that score at least as high. At {page.alpha:g} or "
        f"below, a prompt is called likely memorized: at most {rate} of ordinary prompts are.",
    ]
    if page.method != "reseed":
        means += [
            "<b>Pull to the same image</b> compares where the model's guidance points before and after: 1 is the same "
            "way, however weakly, 0 another. A low score alone is not enough, since a weaker pull can still arrive.",
            "<b>Likeness</b> compares the two texts as the text encoder reads them; 1 is the same.",
        ]
    if page.method == "rewrite":
        means.append("A word's <b>significance</b> is how strongly the score hangs on it (a gradient norm).")
    limits = [
        "All of it is a likelihood, not a proof, and says nothing about anyone's rights.",
        "That it <b>held</b> means that it passed on fresh noise. Single images may still resemble training images, "
        "and recitation that leaves no trace in the guidance is not seen.",
        "It speaks of one model at one image size.",
    ]
    if not math.isfinite(page.threshold):
        limits.append("The calibration is too small for a threshold on the score at this rate.")
    return meaning("What the numbers mean", means, limits)
