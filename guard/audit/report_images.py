"""The page on a run over images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attribution.candidates import NONE
from ..pages.wording import p_text
from .facts import facts
from .gallery import from_disk
from .page import AuditPage, Exhibit, Rejects
from .results import Results, Spool, Words, reasons
from .summary import LEVEL, Summary
from .table import Column, Table

EXAMPLES = 20
MOST_ANSWERS = 12  # that are counted one by one
QUESTIONS = {
    "sidecar": "Sidecar",
    "file": "Bytes, next to the sidecar",
    "pixels": "Pixels, next to the sidecar",
    "c2pa": "C2PA signature",
    "claimed_verdict": "Verdict that the sidecar claims",
    "made_by": "Likely made by",
    "nearest_signature": "Nearest signature",
    "note": "Notes",
}
LABELS = {
    "made_by_probability": "probability",
    "made_by_p_value": "p-value",
    "nearest_signature": "nearest",
    "signature_distance": "distance",
    "made_by": "made by",
}
ALARMING: dict[str, tuple[str, ...]] = {
    "sidecar": ("malformed",),
    "file": ("changed",),
    "pixels": ("changed", "unreadable"),
    "c2pa": ("invalid", "refused"),
}
COUNTED_ONLY = ("file", "claimed_verdict", "note")  # among the answers, not in the table
LOOKS = {"same": "clear", "trusted": "clear", **{word: "memorized" for words in ALARMING.values() for word in words}}


def images_page(
    results: Results, texts: Spool, *, gallery: int, images: Path | None
) -> tuple[AuditPage, NDArray[np.int64]]:
    """Gathers the page on a run over images; see `write_report` for the arguments.

    Returns:
        The page, and (N,) the positions of the results' rows in the order of its table.

    Raises:
        InputError: A part of the run is damaged.
        MissingPackage: pyarrow or Pillow is not installed.
    """
    order = oddest_first(results)
    exhibits = [_exhibit(results, rank, int(i), texts[int(i)]) for rank, i in enumerate(order[:gallery])]
    why_rejected, examples = reasons(results.rejects(), EXAMPLES)
    page = AuditPage(
        name="image",
        total=results.run.get("rows_total"),
        finished=bool(results.run.get("finished")),
        summary=Summary(len(results), {}, None, None, (), 0),
        table=Table("file", len(results), _columns(results, order), LEVEL),
        highlights=_highlights(results),
        pictured="Altered ones first, then those that look least like any candidate's work, or the nearest signature.",
        facts=facts(results.run),
        findings=[(title, counts) for name, title in QUESTIONS.items() if (counts := _answers(results.words(name)))],
        together=_membership(results.run.get("membership")),
        exhibits=exhibits if images is None else from_disk(exhibits, images),
        rejects=Rejects(why_rejected, examples),
    )
    return page, order


def alarms(results: Results) -> NDArray[np.int64]:
    """Returns (N,) int64: in how many ways each image does not fit its sidecar."""
    wrong = [results.words(name).where(*words) for name, words in ALARMING.items()]
    return np.array(wrong, np.int64).sum(0)


def oddest_first(results: Results) -> NDArray[np.int64]:
    """Returns the order of the rows, (N,) int64.

    Most alarms about the sidecar come first, then the smallest p-value of the attribution, then the farthest from a
    signature.
    """
    p_values = np.nan_to_num(results.numbers("made_by_p_value"), nan=1.0)
    distances = np.nan_to_num(results.numbers("signature_distance"), nan=-1.0)
    return np.lexsort((results.numbers("row"), -distances, p_values, -alarms(results)))


def _highlights(results: Results) -> list[tuple[str, str]]:
    highlights = [
        (f"{results.words('sidecar').where('found').sum():,}", "have a sidecar"),
        (f"{np.count_nonzero(alarms(results)):,}", "do not fit their sidecar or signature"),
    ]
    makers = results.words("made_by")
    if makers.words:
        highlights.append((f"{makers.where(NONE).sum():,}", f"likely made by {NONE}"))
    return highlights


def _answers(words: Words) -> dict[str, int]:
    """How many images have each answer, most frequent first; empty where nothing was asked."""
    counts = sorted(words.counts().items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in counts[MOST_ANSWERS:])
    return dict(counts[:MOST_ANSWERS]) | ({f"{len(counts) - MOST_ANSWERS} others": rest} if rest else {})


def _columns(results: Results, order: NDArray[np.int64]) -> list[Column]:
    """Columns that differ between images; what is the same for all stands among the answers above the table."""
    rows = results.numbers("row")[order].astype(np.int64)
    columns = [Column("row", "row", rows, "u32", "whole", upwards=True, spare=True)]
    for name, column in results.columns.items():
        label = LABELS.get(name, name)
        if isinstance(column, Words):
            words, codes = column[order].complete()
            if len(words) > 1 and name not in COUNTED_ONLY:
                looks = [LOOKS.get(word, "plain") for word in words]
                kind = "u8" if len(words) <= 256 else "u32"
                columns.append(Column(name, label, codes, kind, words=words, looks=looks, spare=name != "made_by"))
        elif name != "row" and not np.isnan(column).all():
            p_value = name.endswith("p_value")
            columns.append(
                Column(name, label, column[order], "f32", "p" if p_value else "fine", upwards=p_value, spare=True)
            )
    return columns


def _exhibit(results: Results, rank: int, i: int, path: str) -> Exhibit:
    numbers = []
    for name in ("sidecar", "pixels", "c2pa", "made_by"):
        words = results.words(name)
        if words.codes[i] >= 0:
            numbers.append((LABELS.get(name, name), words.words[words.codes[i]]))
    for name, written in (("made_by_p_value", p_text), ("signature_distance", "{:.3f}".format)):
        value = results.numbers(name)[i]
        if not math.isnan(value):
            numbers.append((LABELS[name], written(value)))
    return Exhibit(rank, int(results.numbers("row")[i]), path, None, numbers)


def _membership(result: dict[str, Any] | None) -> list[tuple[str, list[str]]]:
    """A heading, and sentences; nothing where that was not asked."""
    if result is None:
        return []
    if result.get("verdict") is None:
        return [("Membership", [f"No answer: {result.get('reason', 'the test was not finished')}."])]
    return [(f"Membership: {result['headline'][0].lower()}{result['headline'][1:]}", list(result["notes"]))]
