"""`cryptomnesia rewrite`: mitigate prompts that the model would likely reproduce training data for, and show it."""

import json
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..errors import InputError, NotApplicable
from ..mitigation.words import word_list
from ..progress import Progress
from . import options
from .changes import show
from .console import EXIT_CLEAR, EXIT_MEMORIZED, progress, stdout, waiting
from .documents import write_document
from .files import make_folder, write_text
from .models import DEMO, open_guard
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..guard import Guard
    from ..mitigation.result import Mended
    from ..report import MemorizationReport
    from .rewrite_cases import Case, Pictures
    from .sampling import Sampler, Side

IMAGES = 4


class Method(str, Enum):
    """What is changed."""

    rewrite = "rewrite"
    embed = "embed"
    attenuate = "attenuate"
    reseed = "reseed"


def rewrite(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[PROMPTS]...", help="Prompts to mitigate.")] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="PROMPT", help="A prompt to mitigate; repeatable."),
    ] = None,
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    calibration: options.Calibration = "auto",
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    method: Annotated[
        Method, typer.Option(help="Change words, move the embedding, attenuate tokens, or start from another noise.")
    ] = Method.rewrite,
    words: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Words to put in, one per line; by default a shipped list.")
    ] = None,
    always: Annotated[bool, typer.Option("--always", help="Change prompts that are clear, too.")] = False,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Sample before and after, and write a page there."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, max=16, help=f"Images before and after, for the page; {IMAGES} by default.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sampling steps; the pipeline's own by default.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale when sampling; the pipeline's own by default.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Changes prompts that the model would likely reproduce training data for, as little as will do, and shows how.

    Exit code: 0 it held, or nothing was flagged, 3 it did not hold, 5 the model cannot be judged, 2 bad input,
    130 stopped.
    """
    texts = _texts([*(prompts or []), *(arguments or [])])
    _check_words(words, method)
    options.check_guidance(guidance)
    compared = options.reference_of(reference)
    _check_page(out, {"--images": images, "--steps": steps, "--guidance": guidance})
    guard, draws = open_guard(
        model,
        calibration,
        alpha,
        None,
        (height, width),
        device=device,
        dtype=dtype,
        reference=compared,
        required=True,
        seed=seed,
        words=words,
    )
    calibrated: Calibration = guard.calibration  # type: ignore[assignment]
    sampler = None
    if out is not None:
        from ..demo.showcase import STEPS
        from .sampling import Sampler

        steps = steps or (STEPS if model == DEMO else None)
        shape = guard.denoiser.latent_shape(height, width)
        sampler = Sampler(guard.denoiser, shape, count=images or IMAGES, seed=seed, steps=steps, guidance=guidance)
    from .rewrite_cases import Case

    results = []
    for text in texts:
        report, mitigated = _mitigated(guard, text, method.value, always, seed, draws, (height, width))
        results.append((report, mitigated))
        if not as_json:
            if len(results) > 1:
                stdout().print()
            show(stdout(), Case(report, mitigated.mitigation if mitigated else None))
    cases = _cases(results, sampler)
    document = _document(cases, method.value, calibrated, _facts(guard, calibrated, model, method, seed, sampler), out)
    if out is not None:
        _write(out, cases, document, calibrated)
    if as_json:
        write_document(document)
    elif out is not None:
        stdout().print(Text(f"images before and after: {out / 'index.html'}"), soft_wrap=True)
    failed = any(case.mitigation is not None and not case.mitigation.held for case in cases)
    return EXIT_MEMORIZED if failed else EXIT_CLEAR


# --- before any work ---


def _texts(given: list[str]) -> list[str]:
    if not given:
        raise InputError("no prompt: give one as --prompt PROMPT")
    if not all(text.strip() for text in given):
        raise InputError("an empty prompt reproduces nothing: give one with words in it")
    return list(PromptSource(given))


def _check_words(words: Path | None, method: Method) -> None:
    """Reads the word list once, so that a missing one is found before a large model is loaded."""
    if words is None:
        return
    if method is not Method.rewrite:
        raise InputError(f"--words is for --method rewrite: {method.value} changes no word")
    word_list(words)


def _check_page(out: Path | None, given: dict[str, Any]) -> None:
    if out is not None:
        make_folder(out)
        return
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} is for the images of the page: say where to put it with --out FOLDER")


# --- the work ---


def _mitigated(
    guard: "Guard",
    text: str,
    method: Any,
    always: bool,
    seed: int,
    draws: int,
    size: tuple[int | None, int | None],
) -> tuple["MemorizationReport", "Mended | None"]:
    """Returns the report on one prompt and its mitigation; None for one that is not flagged, unless `always`."""
    height, width = size
    with waiting("checking the prompt"):
        report = guard.check(text, seed=seed, draws=draws, height=height, width=width)
    if report.verdict == "not applicable":
        raise NotApplicable(report.reason or "this model cannot be judged")
    if not (report.memorized or always):
        return report, None
    with waiting(f"looking for a way to mitigate it ({method})"):
        return report, guard.mitigate(text, method, height=height, width=width)


def _cases(results: list[tuple["MemorizationReport", "Mended | None"]], sampler: "Sampler | None") -> list["Case"]:
    from .rewrite_cases import Case

    total = 0
    if sampler is not None:
        total = (
            sum(sampler.sides(mitigated) for _, mitigated in results if mitigated) * len(sampler.seeds) * sampler.steps
        )
    cases = []
    with progress("steps") if total else nullcontext() as bar:
        task = bar.add_task("sampling before and after", total=total) if bar else None

        done_sides = 0

        def steps(done: int, of: int | None) -> None:
            nonlocal done_sides
            if bar is not None and task is not None:
                bar.update(task, completed=done_sides * (of or 0) + done)
            done_sides += done == of

        for report, mitigated in results:
            about = None if mitigated is None else mitigated.mitigation
            before, after = _pictures(sampler, report.prompt or "", mitigated, steps)
            cases.append(Case(report, about, before, after))
    return cases


def _pictures(
    sampler: "Sampler | None", prompt: str, mitigated: "Mended | None", steps: Progress
) -> tuple["Pictures | None", "Pictures | None"]:
    if sampler is None or mitigated is None:
        return None, None
    return _side(sampler.before(prompt, steps)), _side(sampler.after(prompt, mitigated, steps))


def _side(side: "Side | None") -> "Pictures | None":
    from .rewrite_cases import Pictures

    return None if side is None else Pictures(side.images, side.starts, side.independent)


# --- what is written ---


def _facts(
    guard: "Guard", calibration: "Calibration", model: str, method: Method, seed: int, sampler: "Sampler | None"
) -> list[tuple[str, str]]:
    from .. import __version__

    name = "built-in" if model == DEMO else model
    facts = [
        ("model", f"{name}, fingerprint {guard.denoiser.fingerprint}"),
        ("calibration", f"{calibration.identity}: {calibration.n} benign prompts, made {calibration.created}"),
        ("check", f"{calibration.draws} noise draws, seed {seed}, false-alarm rate {calibration.alpha:g}"),
        ("method", method.value),
    ]
    if sampler is not None:
        facts.append(("images", sampler.settings))
    return [*facts, ("made with", f"cryptomnesia {__version__}: cryptomnesia rewrite")]


def _document(
    cases: list["Case"], method: str, calibration: "Calibration", facts: list[tuple[str, str]], out: Path | None
) -> dict[str, Any]:
    return {
        "schema": "cryptomnesia/rewrite-report/1",
        "facts": dict(facts),
        "method": method,
        "alpha": calibration.alpha,
        "prompts": [
            {
                "report": case.report.to_dict(),
                "mitigation": None if case.mitigation is None else case.mitigation.to_dict(),
                "images": {"before": _about_images(case.before), "after": _about_images(case.after)},
            }
            for case in cases
        ],
        "files": {} if out is None else {"page": str(out / "index.html"), "report": str(out / "report.json")},
    }


def _about_images(side: "Pictures | None") -> dict[str, Any] | None:
    return None if side is None else {"from": list(side.captions), "differ_by": side.difference}


def _write(out: Path, cases: list["Case"], document: dict[str, Any], calibration: "Calibration") -> None:
    from ..mitigation.objective import LIMIT
    from .rewrite_page import MitigationPage, render

    page = MitigationPage(
        cases=cases,
        method=document["method"],
        benign=calibration.scores,
        threshold=calibration.threshold,
        alpha=calibration.alpha,
        guidance_limit=LIMIT,
        facts=list(document["facts"].items()),
    )
    write_text(out / "report.json", json.dumps(document, indent=1) + "\n")
    write_text(out / "index.html", render(page))
