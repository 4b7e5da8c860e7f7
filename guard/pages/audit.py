"""The report of `cryptomnesia audit`: what a whole log of prompts, or a folder of images, amounts to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import audit_words as words
from . import histogram, table
from .escape import escape
from .frame import BADGES, chart_panel, document, footer, look, p_text, tiles
from .images import data_uri

if TYPE_CHECKING:
    from ..audit.rows import Reject
    from ..audit.summary import Summary


@dataclass(frozen=True)
class Exhibit:
    """One row that is shown apart, with pictures where there are any.

    Attributes:
        rank: Its number among the rows in the order in which the table shows them first.
        row: Its number in the input.
        text: The prompt, or the path.
        verdict: Of the prompt; None for images.
        numbers: Names and values, as they are shown.
        alike: Rows that it stands for, itself included.
        pictures: (H, W, 3) uint8 each, with a few words under it.
        note: What else is to be said, e.g. why there is no map.
    """

    rank: int
    row: int
    text: str
    verdict: str | None
    numbers: Sequence[tuple[str, str]]
    alike: int = 1
    pictures: Sequence[tuple[NDArray[np.uint8], str]] = ()
    note: str | None = None


@dataclass(frozen=True)
class Cluster:
    """Near-identical prompts: how many, how many of them flagged, and the one that stands for all, the worst."""

    rank: int
    text: str
    rows: int
    flagged: int
    p_value: float | None


@dataclass(frozen=True)
class Scores:
    """Of the run and of the calibration (empty if unknown), and where the verdict changes (infinite: nowhere)."""

    run: NDArray[np.float64]
    benign: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    threshold: float = math.inf


@dataclass(frozen=True)
class Rejects:
    """Rows without a result: how many for which reason, and some of them."""

    reasons: dict[str, int] = field(default_factory=dict)
    examples: "Sequence[Reject]" = ()

    @property
    def rows(self) -> int:
        """How many."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class AuditPage:
    """Everything on the page.

    Attributes:
        name: What a row is: "prompt" or "image".
        total: Rows of the input; None if unknown.
        finished: Whether all of them are done.
        summary: Of the rows that are done.
        scores: None for images.
        findings: For images: what was asked, and how many images have which answer.
        highlights: For images: large numbers, and what they are.
        together: For images: what they say together, each a heading and sentences.
        exhibits: Worst first.
        pictured: How the pictures were made, or why there are none.
        clusters: Largest first, and `clustered`: how many there are in all.
        table, rejects: All rows, and those that have no result.
        facts: The footer's lines (name, value).
        benign: Number of prompts in the calibration; None if it is not at hand.
    """

    name: str
    total: int | None
    finished: bool
    summary: "Summary"
    table: table.Table
    pictured: str
    facts: Sequence[tuple[str, str]]
    scores: Scores | None = None
    findings: Sequence[tuple[str, dict[str, int]]] = ()
    highlights: Sequence[tuple[str, str]] = ()
    together: Sequence[tuple[str, Sequence[str]]] = ()
    exhibits: Sequence[Exhibit] = ()
    clusters: Sequence[Cluster] = ()
    clustered: int = 0
    rejects: Rejects = field(default_factory=Rejects)
    benign: int | None = None


def render(page: AuditPage) -> str:
    """A whole HTML document, with a script of its own."""
    parts = [
        words.head(page),
        words.unfinished(page),
        tiles(words.highlights(page)),
        _scores(page),
        _over_all(page),
        _findings(page),
        _exhibits(page),
        _clusters(page),
        _rows(page),
        _rejects(page),
        words.meanings(page),
        footer(page.facts),
    ]
    title = f"Cryptomnesia: audit of {page.summary.rows:,} {page.name}s"
    if not page.summary.rows:
        return document(title, "audit.css", [part for part in parts if part])
    return document(title, "audit.css", [*(part for part in parts if part), table.data(page.table)], script="audit.js")


def _section(title: str, about: str, content: str, name: str = "") -> str:
    """`about` and `content` are HTML."""
    place = f' id="{name}"' if name else ""
    return f'<section{place}>\n<h2>{escape(title)}</h2>\n<p class="about">{about}</p>\n{content}\n</section>'


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A small table in a panel; cells are HTML, and columns with these numbers are right-aligned."""
    kinds = [' class="number"' if i in numbers else "" for i in range(len(heads))]
    head = "".join(f'<th{kind} scope="col">{name}</th>' for kind, name in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="panel"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- all rows together ---


def _scores(page: AuditPage) -> str:
    if page.scores is None or not len(page.scores.run):
        return ""
    scores = page.scores
    svg = histogram.chart(scores.run, scores.benign, scores.threshold, page.summary.alpha, f"{page.name}s")
    return _section("The scores", words.about_scores(page), chart_panel(svg, keyed=len(scores.benign) > 0))


def _over_all(page: AuditPage) -> str:
    parts = []
    if page.summary.alarms is not None:
        heads = ("what counts as a finding", f"{page.name}s", "of these by chance")
        parts.append(
            _section(
                "How many are false alarms?", words.about_chance(page), _grid(heads, words.chance(page), numbers=(1, 2))
            )
        )
    for title, sentences in page.together:
        points = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(_section(title, words.TOGETHER, f'<div class="panel"><ul>{points}</ul></div>'))
    return "\n".join(parts)


def _findings(page: AuditPage) -> str:
    if not page.findings:
        return ""
    blocks = []
    for title, counts in page.findings:
        all_rows = max(1, sum(counts.values()))
        lines = "".join(
            f"<tr><td>{escape(answer)}</td><td class='number'>{count:,}</td>"
            f'<td class="share"><meter min="0" max="{all_rows}" value="{count}">{count}</meter></td></tr>'
            for answer, count in counts.items()
        )
        blocks.append(f'<div class="panel"><h3>{escape(title)}</h3><table><tbody>{lines}</tbody></table></div>')
    return _section("What was found", words.about_findings(page), f'<div class="findings">{"".join(blocks)}</div>')


# --- some rows apart ---


def _exhibits(page: AuditPage) -> str:
    if not page.exhibits:
        return ""
    cards = "\n".join(_card(number, exhibit) for number, exhibit in enumerate(page.exhibits, 1))
    return _section(words.gallery_title(page), escape(page.pictured), f'<div class="gallery">{cards}</div>', "gallery")


def _card(number: int, exhibit: Exhibit) -> str:
    text = table.cut(exhibit.text)
    figures = "".join(
        f'<figure><img src="{data_uri(image)}" alt="{escape(caption)}: {escape(text[:200])}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in exhibit.pictures
    )
    pictures = f'<div class="pictures">{figures}</div>' if figures else ""
    verdict = exhibit.verdict
    badge = "" if verdict is None else f'<span class="badge">{escape(BADGES.get(verdict, verdict))}</span>'
    pairs = [("row", str(exhibit.row)), *exhibit.numbers]
    numbers = " · ".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in pairs)
    alike = "" if exhibit.alike == 1 else f"<p>{_show(exhibit.rank, f'{exhibit.alike:,} near-identical')}</p>"
    note = "" if exhibit.note is None else f'<p class="note">{escape(exhibit.note)}</p>'
    kind = "" if verdict is None else f" {look(verdict)}"
    return (
        f'<article class="card{kind}">{pictures}<div class="words">'
        f'<h3 class="prompt"><span class="number">{number}.</span> {escape(text)}</h3>{badge}'
        f'<p class="numbers">{numbers}</p>{alike}{note}</div></article>'
    )


def _show(rank: int, label: str) -> str:
    return f'<button type="button" data-cluster="{rank}">{escape(label)}</button>'


def _clusters(page: AuditPage) -> str:
    if not page.clusters:
        return ""
    heads, right = [f"{page.name}s", "the worst of them, which stands for all", ""], [0]
    rows = [[f"{one.rows:,}", escape(table.cut(one.text)), _show(one.rank, "show all")] for one in page.clusters]
    if page.summary.alarms is not None:
        heads[2:2], right = ["flagged", "smallest p-value"], [0, 2, 3]
        for row, one in zip(rows, page.clusters, strict=True):
            row[2:2] = [f"{one.flagged:,}", "–" if one.p_value is None else p_text(one.p_value)]
    return _section("Near-identical prompts", words.about_clusters(page), _grid(heads, rows, right), "clusters")


def _rows(page: AuditPage) -> str:
    if not page.summary.rows:
        return ""
    return _section(f"All {page.name}s", words.about_rows(page), table.render(page.table), "all-rows")


def _rejects(page: AuditPage) -> str:
    if not page.rejects.rows:
        return ""
    reasons = _grid(
        ("reason", "rows"), [(escape(why), f"{count:,}") for why, count in page.rejects.reasons.items()], numbers=(1,)
    )
    examples = _grid(
        ("row", "reason", "begins with"),
        [(str(one.row), escape(one.reason), f"<code>{escape(one.excerpt)}</code>") for one in page.rejects.examples],
        numbers=(0,),
    )
    folded = f"<details><summary>the first {len(page.rejects.examples)} of them</summary>{examples}</details>"
    return _section("Rows without a result", words.about_rejects(page), f"{reasons}\n{folded}", "rejects")
