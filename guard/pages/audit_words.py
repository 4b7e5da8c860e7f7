"""What the report of an audit says in words and in small numbers."""

import math
from typing import TYPE_CHECKING

from ..audit.summary import LEVEL, needed
from .frame import meaning, p_text

if TYPE_CHECKING:
    from .audit import AuditPage

NO_VERDICT = (
    "No prompt has a verdict, since there was no calibration for this model: scores are only compared with each other. "
    "Run <code>cryptomnesia calibrate</code> once and audit again with its file."
)

TOGETHER = "Was the model trained on some of these images? They were compared, as a whole, with the references."
IMAGES_MEAN = (
    "<b>Pixels, bytes</b>: whether they are those that the sidecar tells of. Other bytes with the same pixels are what "
    "stripped metadata leaves.",
    "<b>Likely made by</b>: the likeliest of the candidates, or none of these where the p-value, the share of the "
    "candidates' own images that look at least as odd, is small.",
    "<b>Distance</b>: to the nearest signature; smaller = more alike.",
)
IMAGES_LIMITS = (
    "A <b>missing</b> sidecar says nothing about an image. One that fits says that nobody has changed either, not that "
    "what it says is true: only a trusted signature vouches for that.",
    "Who made an image is a likelihood among the candidates, for unaltered images.",
)


def amount(value: float) -> str:
    """A count that need not be whole, with two digits at least."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def rate(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:g} %"


def head(page: "AuditPage") -> str:
    """The title and, in a few sentences, the result."""
    motto = (
        "a whole prompt log, judged before any image is made" if page.scores else "a whole folder of images, examined"
    )
    return (
        f'<header>\n<h1>Cryptomnesia</h1>\n<p class="motto">{motto}</p>\n'
        f'<p class="summary">{_result(page)}</p></header>'
    )


def _result(page: "AuditPage") -> str:
    about = page.summary
    if not about.rows:
        return "No row has a result yet." if not page.finished else "No row of the input has a result."
    if page.scores is None:
        return f"{about.rows:,} images were examined."
    if about.alarms is None:
        return f"{about.rows:,} prompts were scored. {NO_VERDICT}"
    flagged = f"<strong>{about.flagged:,} of {about.rows:,} prompts are likely memorized</strong>"
    unlike = f", {about.unlike:,} of them unlike each other" if about.unlike < about.flagged else ""
    expected = about.alarms.expected
    chance = f"If every prompt were an ordinary one, about {amount(expected)} would have been flagged by chance"
    if not about.flagged:
        return f"{flagged}. {chance}."
    if about.alarms.explain(about.flagged):
        return f"{flagged}{unlike}. {chance}, so chance alone may explain them."
    return f"{flagged}{unlike}. {chance}, so there are more than chance explains."


def unfinished(page: "AuditPage") -> str:
    """A warning, where rows are missing."""
    if page.finished:
        return ""
    done = page.summary.rows + page.rejects.rows
    of = "" if page.total is None else f" of {page.total:,}"
    return (
        f'<p class="warning" role="note"><b>This audit is not finished.</b> {done:,}{of} rows are done, and the '
        "numbers below speak of these alone. Run the same command again to go on.</p>"
    )


def highlights(page: "AuditPage") -> list[tuple[str, str]]:
    """Large numbers, each with what it is; HTML."""
    about = page.summary
    found = [(f"{about.rows:,}", f"{page.name}s with a result")]
    if about.alarms is not None:
        stands = next(one.rows for one in about.discoveries if one.level == LEVEL)
        found += [
            (f"{about.flagged:,} <small>{rate(round(about.flagged / about.rows, 4))}</small>", "likely memorized"),
            (amount(about.alarms.expected), "expected by chance, if all were ordinary"),
            (f"{stands:,}", f"stand over the whole run, at a false discovery rate of {rate(LEVEL)}"),
        ]
    else:
        found += page.highlights or [(f"{page.rejects.rows:,}", "rows without a result")]
    return found


def about_scores(page: "AuditPage") -> str:
    """Above the histogram."""
    if page.scores is None or not len(page.scores.benign):
        return "Higher scores are likelier memorized. There are no benign prompts to compare with."
    return (
        "Above the line what was audited, below it the ordinary prompts that set the threshold and appear nowhere else."
    )


def about_chance(page: "AuditPage") -> str:
    """Above the table of false alarms."""
    sentences = [
        "Among many prompts a verdict on each flags some by chance. Benjamini-Hochberg looks at all p-values together: "
        "of what it leaves standing, at most the chosen share is there by chance, in expectation."
    ]
    about, benign = page.summary, page.benign
    stands = next(one.rows for one in about.discoveries if one.level == LEVEL)
    if about.alarms is not None and benign is not None and not stands and about.flagged:
        least = needed(about.alarms.rows, LEVEL, benign)
        enough = math.ceil(about.alarms.rows / (LEVEL * about.flagged))
        sentences.append(
            f"With {benign:,} benign prompts no p-value is below {p_text(1 / (benign + 1))}: at {rate(LEVEL)} nothing "
            f"can stand unless {least:,} prompts reach it. A calibration with {enough:,} or more could let all "
            f"{about.flagged:,} flagged prompts stand."
        )
    return " ".join(sentences)


def chance(page: "AuditPage") -> list[tuple[str, str, str]]:
    """What counts as a finding, how many there are, and how many of them by chance; HTML."""
    about, alarms = page.summary, page.summary.alarms
    if alarms is None:
        return []
    spread = "" if alarms.high is None or alarms.low is None else f" ({amount(alarms.low)} to {amount(alarms.high)})"
    rows = [
        (f"the verdict alone, p ≤ {about.alpha:g}", f"{about.flagged:,}", f"about {amount(alarms.expected)}{spread}")
    ]
    return rows + [
        (
            f"false discovery rate {rate(one.level)}",
            f"{one.rows:,}",
            f"at most {amount(one.by_chance)}" if one.rows else "–",
        )
        for one in about.discoveries
    ]


def about_findings(page: "AuditPage") -> str:
    """Above the answers."""
    return f"Each question apart, over the {page.summary.rows:,} images that could be read."


def gallery_title(page: "AuditPage") -> str:
    """Above the rows that are shown apart."""
    if page.scores is None:
        return "The oddest images"
    return "The worst offenders" if page.summary.flagged else "The highest scores"


def about_clusters(page: "AuditPage") -> str:
    """Above the clusters."""
    shown = "" if len(page.clusters) == page.clustered else f" The {len(page.clusters)} largest of {page.clustered:,}."
    return (
        "Prompts that differ in case, punctuation or about one word in ten, shown once, with their number: the same "
        f"wish, asked again.{shown}"
    )


def about_rows(page: "AuditPage") -> str:
    """Above the table."""
    order = "Worst first" if page.scores is not None else "Oddest first"
    beside = "" if page.table.texts is not None else " Texts are loaded from the folder beside this page as needed."
    return (
        f"{order}; a click on a heading sorts. Rows are numbered from 0, as in the input.{beside}"
        "<noscript> The table needs JavaScript; results/*.parquet holds the same rows.</noscript>"
    )


def about_rejects(page: "AuditPage") -> str:
    """Above the rejects."""
    return f"{page.rejects.rows:,} rows could not be measured; they are in no other number of this page."


def meanings(page: "AuditPage") -> str:
    """What the words mean, and what they do not."""
    if page.scores is None:
        return meaning("What the answers mean", IMAGES_MEAN, IMAGES_LIMITS)
    about = page.summary
    means = ["The <b>score</b> tells how hard a prompt pulls on pure noise, more = likelier memorized."]
    limits = [
        "All of it is a likelihood, not a proof. It does not say which image returns, nor what that means for anyone's "
        "rights.",
        "It speaks of one model at one image size.",
    ]
    if about.alarms is not None:
        size = "" if page.benign is None else f" {page.benign:,}"
        means += [
            f"The <b>p-value</b> is the share of{size} benign prompts that score at least as high. At {about.alpha:g} "
            f"or below a prompt is called likely memorized: at most {rate(about.alpha or 0)} of ordinary prompts are.",
            "The <b>adjusted</b> p-value is the smallest false discovery rate at which the prompt still stands among "
            "all of this run.",
            "<b>By chance</b> in brackets: what 90 % of calibrations of this size would give.",
        ]
        limits += [
            "<b>Clear</b> is no guarantee: a prompt can be memorized and still score low.",
            "The rates hold if ordinary prompts of this log are of the same sort as (exchangeable with) the benign "
            "prompts of the calibration. If they are longer, or in another language, calibrate on prompts like yours.",
        ]
    return meaning("What the numbers mean", means, limits)
