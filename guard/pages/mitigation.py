"""The page of `cryptomnesia rewrite`: prompts before and after they were mended, with what the model makes of both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..report import MemorizationReport
from .escape import escape
from .frame import BADGES, chart_panel, document, footer, look, meaning, p_text, tiles
from .images import data_uri, difference
from .marks import Piece, marked
from .strip import Lane, Marker, chart

if TYPE_CHECKING:
    from ..mitigation.result import Method, Mitigation

ABOUT = {
    "rewrite": "The method changes words that pull towards recitation, as few as the test on fresh noise asks for.",
    "embed": "The method keeps the words and moves what the text encoder makes of them until the pull lets go.",
    "reseed": "The method keeps the prompt and starts from the one of several noises from which it pulls the least.",
}
HELD = {
    "rewrite": "On noise that it was not made with, the new prompt is clear and no longer pulls to the same image.",
    "embed": "On noise that it was not made with, the moved embedding is clear and no longer pulls to the same image.",
    "reseed": "On noise close to the chosen one, the prompt is clear.",
}
LARGE = 160  # pixels of width
CHANGES = {"drop": "dropped", "swap": "swapped", "insert": "inserted"}


@dataclass(frozen=True)
class Pictures:
    """Images (S, H, W, 3) uint8 of one side, and a few words under each.

    Attributes:
        independent: Whether they start from unlike noise, so that it says something how much they differ.
    """

    images: NDArray[np.uint8]
    captions: Sequence[str]
    independent: bool = True

    @property
    def difference(self) -> float | None:
        """How much they differ from each other, where that says something; see `images.difference`."""
        return difference(self.images) if self.independent else None


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
    def changed(self) -> bool:
        """Whether there is something to sample with in place of the prompt; a rewriting may not be found."""
        about = self.mitigation
        return about is not None and (about.held or about.method != "rewrite")

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
        """p-value and score; None if nothing was changed."""
        about = self.mitigation
        return (None, None) if about is None or not self.changed else (about.p_after, about.score_after)


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


def outcome(case: Case) -> tuple[str, str]:
    """What came of one prompt: in two or three words, and in a plain sentence."""
    about = case.mitigation
    if about is None:
        return "Not changed", "The prompt is clear."
    if about.held:
        return "Mended", HELD[about.method]
    reason = about.reason or "it did not pass the test"
    stays = "Do not rely on what was tried." if case.changed else "The prompt stays as it was."
    return "Not mended", f"{reason[:1].upper()}{reason[1:]}. {stays}"


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
    title, sentence = outcome(case)
    parts = [f"{head}{title}</h2>", f'<p class="about">{escape(sentence)}</p>', _sides(case)]
    if case.mitigation is not None:
        parts += [_facts(case, case.mitigation, page), _words(case.mitigation)]
    return f'<article id="prompt-{number}">' + "\n".join(parts) + "</article>"


def _sides(case: Case) -> str:
    about, report = case.mitigation, case.report
    rewritten = case.prompt if about is None or about.rewritten is None else about.rewritten
    old, new = marked(case.prompt, rewritten)
    badge, name = BADGES[report.verdict], "before" if case.changed else "prompt"
    sides = [_side(name, look(report.verdict), badge, _text(old, "del"), case.before, case.numbers_before)]
    if about is not None and case.changed:
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
    differ = None if pictures is None else pictures.difference
    shown += [] if differ is None else [f"images differ by <b>{differ:.2f}</b>"]
    figures = "" if pictures is None else _figures(name, pictures)
    return (
        f'<section class="side {kind}"><p class="label"><span class="which">{name}</span> '
        f'<span class="badge">{badge}</span></p><h3 class="prompt">{text}</h3>'
        f'{figures}<p class="numbers">{" · ".join(shown)}</p></section>'
    )


def _text(pieces: Sequence[Piece], tag: str) -> str:
    return "".join(f"<{tag}>{escape(p.text)}</{tag}>" if p.changed else escape(p.text) for p in pieces)


def _figures(name: str, pictures: Pictures) -> str:
    figures = "".join(
        f'<figure><img src="{data_uri(image)}" alt="{name}: {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in zip(pictures.images, pictures.captions, strict=True)
    )
    room = " large" if pictures.images.shape[2] > LARGE else ""
    return f'<div class="pictures{room}">{figures}</div>'


def _facts(case: Case, about: "Mitigation", page: MitigationPage) -> str:
    rows = f"rows that the network was asked, {about.backward_rows} of them with a gradient"
    if not case.changed or about.method == "reseed" or about.recall is None or about.similarity is None:
        return f'<p class="numbers"><b>{about.forward_rows}</b> {rows}</p>'
    return tiles(
        [
            (f"{about.recall:.2f}", f"pull to the same image; to hold, at most {page.recall_limit:g}"),
            (f"{about.similarity:.2f}", "likeness of the text to the model"),
            (f"{about.forward_rows}", rows),
        ]
    )


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
        means.append(
            "A word's <b>significance</b> is how strongly the score hangs on it (a gradient norm; for a model without "
            "gradients, how much the score falls without the word)."
        )
    if any(case.before is not None or case.after is not None for case in page.cases):
        means.append(
            "<b>Images differ by</b> is their mean root mean square difference, 0 = identical. What is recited hardly "
            "differs from seed to seed; a plain thing on a plain ground does not differ much either."
        )
    limits = [
        "All of it is a likelihood, not a proof, and says nothing about anyone's rights.",
        "That it <b>held</b> means that it passed on fresh noise. Single images may still resemble training images, "
        "and recitation that leaves no trace in the guidance is not seen.",
        "It speaks of one model at one image size.",
    ]
    if not math.isfinite(page.threshold):
        limits.append("The calibration is too small for a threshold on the score at this rate.")
    return meaning("What the numbers mean", means, limits)
