"""The page on a run over prompts."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration import Calibration
from ..false_discovery import Numbers, adjusted
from ..pages.wording import badge, look, p_text
from ..progress import Progress
from ..report import MemorizationReport
from .clusters import first_alike
from .facts import facts
from .gallery import SEED, generated
from .page import AuditPage, Cluster, Exhibit, Rejects, Scores
from .results import Results, Spool, Words, reasons
from .summary import LEVEL, summarize
from .table import Column, Table

CLUSTERS, EXAMPLES = 20, 20


@dataclass(frozen=True)
class Ranked:
    """The columns of a run, likeliest memorized prompts first.

    Attributes:
        order: (N,) positions of the rows in the results.
        rows: Their numbers in the input.
        scores, p_values, adjusted: (N,) float64; NaN = missing. Higher scores, smaller p-values = likelier memorized.
        verdicts: The verdict of each row.
        stands_for: (N,) rank of the prompt that each is near-identical to, its own where that is none.
        alike: (N,) how many are near-identical to the same.
    """

    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: Numbers
    p_values: Numbers
    adjusted: Numbers
    verdicts: Words
    stands_for: NDArray[np.int64]
    alike: NDArray[np.int64]

    @staticmethod
    def of(results: Results, texts: Spool) -> "Ranked":
        """Returns the columns, smallest p-values first, then highest scores, then as in the input."""
        rows, scores, p_values = (results.numbers(name) for name in ("row", "score", "p_value"))
        order = np.lexsort((rows, -np.nan_to_num(scores, nan=-math.inf), np.nan_to_num(p_values, nan=math.inf)))
        stands_for = first_alike(texts[i] for i in order)
        return Ranked(
            order=order,
            rows=rows[order].astype(np.int64),
            scores=scores[order],
            p_values=p_values[order],
            adjusted=adjusted(p_values[order]),
            verdicts=results.words("verdict")[order],
            stands_for=stands_for,
            alike=np.bincount(stands_for, minlength=len(order))[stands_for],
        )

    def __len__(self) -> int:
        return len(self.order)


def prompts_page(
    results: Results,
    texts: Spool,
    calibration: Calibration | None,
    *,
    pipe: Any,
    gallery: int,
    progress: Progress | None,
) -> tuple[AuditPage, NDArray[np.int64]]:
    """Gathers the page on a run over prompts; see `write_report` for the arguments.

    Returns:
        The page, and (N,) the positions of the results' rows in the order of its table.

    Raises:
        InputError: A part of the run is damaged, or the pipeline is of no supported family.
        MissingPackage: A package that reading or drawing needs is not installed.
    """
    ranked = Ranked.of(results, texts)
    alpha, benign = results.run.get("alpha"), None if calibration is None else calibration.n
    summary = summarize(ranked.verdicts, ranked.p_values, ranked.stands_for, alpha, benign)
    leaders = np.flatnonzero(ranked.stands_for == np.arange(len(ranked)))
    worst = leaders[ranked.verdicts.where("memorized")[leaders]] if summary.flagged else leaders
    exhibits = [_exhibit(ranked, int(i), texts) for i in worst[:gallery]]
    if pipe is not None:
        reports = [_report(ranked, exhibit, results.run) for exhibit in exhibits]
        exhibits = generated(exhibits, reports, pipe, progress)
    groups = sorted((i for i in leaders if ranked.alike[i] > 1), key=lambda i: (-ranked.alike[i], i))
    counts, examples = reasons(results.rejects(), EXAMPLES)
    page = AuditPage(
        name="prompt",
        total=results.run.get("rows_total"),
        finished=bool(results.run.get("finished")),
        summary=summary,
        table=_table(ranked, summary.alarms is not None),
        pictured=_pictured(pipe),
        facts=facts(results.run, calibration),
        scores=_scores(ranked, calibration),
        exhibits=exhibits,
        clusters=[_cluster(ranked, int(i), texts) for i in groups[:CLUSTERS]],
        clustered=len(groups),
        rejects=Rejects(counts, examples),
        benign=benign,
    )
    return page, ranked.order


def _pictured(pipe: Any) -> str:
    if pipe is None:
        return "Near-identical prompts once. No model was at hand when this page was made, so there are no images."
    return (
        f"Near-identical prompts once. Beside the image that the model makes of each (seed {SEED}, one of many that it "
        "could make), a map of where the prompt pins it down: bright = hard."
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _verdict(ranked: Ranked, i: int) -> str:
    code = ranked.verdicts.codes[i]
    return ranked.verdicts.words[code] if code >= 0 else "not applicable"


def _exhibit(ranked: Ranked, i: int, texts: Spool) -> Exhibit:
    p_value, value, score = (column[i] for column in (ranked.p_values, ranked.adjusted, ranked.scores))
    numbers = [] if math.isnan(p_value) else [("p-value", p_text(p_value)), ("adjusted", p_text(value))]
    numbers += [] if math.isnan(score) else [("score", f"{score:.2f}")]
    text, alike = texts[ranked.order[i]], int(ranked.alike[i])
    return Exhibit(i, int(ranked.rows[i]), text, _verdict(ranked, i), numbers, alike)


def _report(ranked: Ranked, exhibit: Exhibit, run: dict[str, Any]) -> MemorizationReport:
    """What the check of an exhibit's prompt said."""
    i = exhibit.rank
    return MemorizationReport(
        prompt=exhibit.text,
        verdict=_verdict(ranked, i),  # type: ignore[arg-type]  # what the audit wrote
        score=_number(ranked.scores[i]),
        iso=None,
        aniso=None,
        p_value=_number(ranked.p_values[i]),
        alpha=run.get("alpha"),
        reason=None,
        note=None,
        seed=int(run.get("seed") or 0),
        draws=int(run.get("draws") or 0),
        forward_rows=0,
        fingerprint=run.get("model"),
        calibration_id=run.get("calibration"),
        reference=run.get("reference") or "empty branch",
    )


def _cluster(ranked: Ranked, i: int, texts: Spool) -> Cluster:
    flagged = ranked.verdicts.where("memorized") & (ranked.stands_for == i)
    text, p_value = texts[ranked.order[i]], _number(ranked.p_values[i])
    return Cluster(i, text, int(ranked.alike[i]), int(flagged.sum()), p_value)


def _scores(ranked: Ranked, calibration: Calibration | None) -> Scores:
    run = ranked.scores[np.isfinite(ranked.scores)]
    return Scores(run) if calibration is None else Scores(run, np.array(calibration.scores), calibration.threshold)


def _table(ranked: Ranked, calibrated: bool) -> Table:
    words, codes = ranked.verdicts.complete()
    columns = [
        Column("row", "row", ranked.rows, "u32", "whole", upwards=True, spare=True),
        Column("score", "score", ranked.scores, "f32", spare=True),
    ]
    if calibrated:
        columns += [
            Column("p_value", "p-value", ranked.p_values, "f32", "p", upwards=True),
            Column("adjusted", "adjusted", ranked.adjusted, "f32", "p", upwards=True, spare=True),
        ]
    columns += [
        Column(
            "verdict",
            "verdict",
            codes,
            "u8",
            words=[badge(word) for word in words],
            looks=[look(word) for word in words],
        ),
        Column("alike", "alike", ranked.alike, "u32", "whole", spare=True),
        Column("cluster", "", ranked.stands_for, "u32", "whole"),
    ]
    return Table("prompt", len(ranked), columns, LEVEL)
