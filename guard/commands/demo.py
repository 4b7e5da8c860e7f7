"""`cryptomnesia demo`: judge prompts of the built-in model first, sample them afterwards, show both on a page."""

import json
import os
import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from . import options
from .console import EXIT_CLEAR, following, p_text, progress, stderr, stdout, verdict_text, waiting
from .documents import write_document
from .files import make_folder, write_text
from .models import DEMO, open_model

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..demo.captions import Caption
    from ..demo.page import Card, DemoPage
    from ..guard import Guard
    from ..report import MemorizationReport

# (key, heading, what it is, label of the chart's lane, whether training images are expected to return)
GROUPS = (
    (
        "recited",
        "Fed one image over and over",
        "Each of these came with one and the same image, or figure, throughout training. One that returns "
        "without a warning was missed.",
        "Fed one image\nover and over",
        True,
    ),
    (
        "titles",
        "The same wording, nothing to reproduce",
        "Same grammar, same words. Two were trained on as often, but with ever different images; two never were.",
        "Same wording\nnothing to reproduce",
        False,
    ),
    (
        "general",
        "Everyday prompts",
        "What the model was made for: a thing on a coloured ground.",
        "Everyday prompts",
        False,
    ),
)
GROUP_OF = {"verbatim": "recited", "template": "recited", "control": "titles", "unseen": "titles", "general": "general"}
KIND_WORDS = {
    "verbatim": "trained on with one image",
    "template": "trained on with one figure on changing backgrounds",
    "control": "trained on as often, with ever different images",
    "unseen": "never trained on",
    "general": "trained on with varied images of one thing",
}


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the page goes.")] = Path(
        "cryptomnesia-demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, max=16, help="Images per prompt.")] = 4,
    device: options.Device = "auto",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in the browser.")] = True,
    as_json: options.Json = False,
) -> int:
    """See it work in a minute: twelve prompts on a small built-in model, judged first and sampled afterwards.

    Exit code: 0 shown, whatever the verdicts are; 2 bad input, 130 stopped.
    """
    from ..protocols import pipeline_of

    make_folder(out)
    _announce("loading the built-in model: some seconds")
    pipe = pipeline_of(open_model(DEMO, device)).pipe
    with waiting("loading what it was trained on"):
        from ..demo import demo_calibration
        from ..demo.gallery import Gallery
        from ..demo.page import MISSED
        from ..demo.showcase import prompts, sample
        from ..guard import Guard

        calibration, gallery = demo_calibration(), Gallery.load()
        guard = Guard(pipe, calibration)
    captions = prompts()
    texts = [caption.text for caption in captions]
    reports, scoring = _judge(guard, texts, calibration.draws)
    if not as_json:
        _show(captions, reports)
    _announce(f"now sampling {len(texts) * seeds} images, to see if it was right: about a minute")
    started = time.monotonic()
    with progress("images") as bar:
        task = bar.add_task("sampling", total=len(texts) * seeds)
        images = sample(pipe, texts, seeds, progress=following(bar, task))
    sampling = time.monotonic() - started
    cards = _cards(captions, reports, images, gallery)
    page = _page(cards, calibration, len(gallery.captions), scoring, sampling, _facts(guard, calibration, seeds))
    report = _report(page, calibration)
    _write(out, page, report)
    index = out / "index.html"
    if as_json:
        write_document(report)
    else:
        for card in cards:
            if card.missed:
                stdout().print(Text(f"{MISSED}: {card.report.prompt}", style="bold red"), soft_wrap=True)
        stdout().print(Text(f"the images, and what they resemble: {index}"), soft_wrap=True)
    if open_page and _has_screen():
        webbrowser.open(index.resolve().as_uri())
    return EXIT_CLEAR


def _announce(message: str) -> None:
    """Prints one line that stays, so that a log, too, says what is being waited for."""
    stderr().print(Text(message, style="dim"), soft_wrap=True)


def _judge(guard: "Guard", texts: list[str], draws: int) -> tuple[list["MemorizationReport"], float]:
    """Returns the reports on all prompts, and the seconds that they took."""
    with waiting(f"judging {len(texts)} prompts, before any image is made"):
        started = time.monotonic()
        reports = list(guard.check_many(texts, draws=draws))
        return reports, time.monotonic() - started


def _show(captions: list["Caption"], reports: list["MemorizationReport"]) -> None:
    table = Table(title="Before any image is made", title_justify="left", title_style="bold")
    console = stdout()
    if not console.is_terminal:
        console.width = 120
    wide = console.width >= 90  # else prompt and verdict are what matters
    table.add_column("prompt", overflow="fold", min_width=8)
    if wide:
        table.add_column("in training", style="dim")
        table.add_column("p-value", justify="right")
    table.add_column("verdict", no_wrap=wide, overflow="fold")
    last = None
    for caption, report in zip(captions, reports, strict=True):
        if last not in (None, GROUP_OF[caption.kind]):
            table.add_section()
        last = GROUP_OF[caption.kind]
        numbers = (KIND_WORDS[caption.kind], p_text(report.p_value)) if wide else ()
        table.add_row(Text(caption.text), *numbers, verdict_text(report.verdict))
    console.print(table)


def _cards(captions: list["Caption"], reports: list["MemorizationReport"], images: Any, gallery: Any) -> list["Card"]:
    from ..demo.page import Card
    from ..demo.showcase import compare, cutout

    cards, fed = [], {key for key, *_, memorized in GROUPS if memorized}
    for caption, report, made in zip(captions, reports, images, strict=True):
        comparison = compare(gallery, caption, made)
        # of all training images its own is the closest
        returned = gallery.captions[comparison.closest].text == caption.text
        cards.append(
            Card(
                report=report,
                group=GROUP_OF[caption.kind],
                kind=KIND_WORDS[caption.kind],
                images=made,
                distances=comparison.distances,
                closest=cutout(gallery, comparison.closest),
                closest_caption=gallery.captions[comparison.closest].text,
                missed=returned and GROUP_OF[caption.kind] in fed and report.verdict == "clear",
            )
        )
    return cards


def _page(
    cards: list["Card"],
    calibration: "Calibration",
    gallery_size: int,
    scoring: float,
    sampling: float,
    facts: list[tuple[str, str]],
) -> "DemoPage":
    from ..demo.page import DemoPage, Group

    return DemoPage(
        groups=[Group(*values) for values in GROUPS],
        cards=cards,
        benign=calibration.scores,
        threshold=calibration.threshold,
        alpha=calibration.alpha,
        gallery_size=gallery_size,
        scoring_seconds=scoring,
        sampling_seconds=sampling,
        facts=facts,
    )


def _facts(guard: "Guard", calibration: "Calibration", seeds: int) -> list[tuple[str, str]]:
    from .. import __version__
    from ..demo.showcase import GUIDANCE, STEPS

    return [
        ("model", f"built-in, fingerprint {guard.denoiser.fingerprint}"),
        ("calibration", f"{calibration.identity}: {calibration.n} benign prompts, made {calibration.created}"),
        ("check", f"{calibration.draws} noise draws, seed 0, false-alarm rate {calibration.alpha:g}"),
        ("images", f"DDIM, {STEPS} steps, guidance {GUIDANCE}, seeds 0 to {seeds - 1}, 64x64 pixels"),
        ("made with", f"cryptomnesia {__version__}: cryptomnesia demo --seeds {seeds}"),
    ]


def _report(page: "DemoPage", calibration: "Calibration") -> dict[str, Any]:
    return {
        "schema": "cryptomnesia/demo-report/1",
        "facts": dict(page.facts),
        "alpha": page.alpha,
        "threshold": page.threshold,
        "benign_prompts": calibration.n,
        "scoring_seconds": round(page.scoring_seconds, 3),
        "sampling_seconds": round(page.sampling_seconds, 3),
        "prompts": [
            {
                "group": card.group,
                "in_training": card.kind,
                "report": card.report.to_dict(),
                "missed": card.missed,
                "distances": [round(distance, 5) for distance in card.distances],
                "closest_training_caption": card.closest_caption,
            }
            for card in page.cards
        ],
    }


def _write(out: Path, page: "DemoPage", report: dict[str, Any]) -> None:
    from ..demo.page import render

    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(out / "index.html", render(page))


def _has_screen() -> bool:
    """Returns whether a browser window would be seen; without one, some systems open a text browser in its place."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
