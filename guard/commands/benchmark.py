"""`cryptomnesia benchmark`: how well are memorized prompts told on this model?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options
from .benchmark_terminal import show
from .benchmark_work import Work
from .console import EXIT_CLEAR, EXIT_STOPPED, stderr
from .documents import write_document
from .files import make_folder
from .models import AUTO, DEMO, NONE, check_alpha, open_model

if TYPE_CHECKING:
    from ..benchmark.lists import Lists, Reading
    from ..calibration import Calibration

PAGE, REPORT = "index.html", "benchmark.json"


def benchmark(
    memorized: Annotated[
        str,
        typer.Option(
            "--memorized", metavar="FILE", help="Prompts that the model is known to reproduce training images for."
        ),
    ],
    negatives: Annotated[
        list[str],
        typer.Option("--negatives", metavar="FILE", help="Prompts that it is known not to; repeat for several lists."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Results go here; the same command goes on where it was."),
    ],
    model: options.Model = DEMO,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    format: options.Format = None,
    column: Annotated[
        str | None, typer.Option(help="Column with the prompts; by default prompt, or else caption, or else text.")
    ] = None,
    delimiter: options.Delimiter = None,
    kinds: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the kind of each memorized prompt; by default type, if any."),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            "-c",
            metavar="[auto|FILE]",
            help="auto: the one that `cryptomnesia calibrate` keeps, or else one that is made of the shipped list.",
        ),
    ] = AUTO,
    calibrate_on: Annotated[
        str | None,
        typer.Option("--calibrate-on", metavar="FILE", help="Benign prompts to calibrate with, none of them compared."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Noise draws; by default as calibrated, else 4.")
    ] = None,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of the network per call; fewer need less memory.")
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option("--generate", min=1, max=64, help="Make so many images of each memorized prompt: is it so?"),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references", metavar="FOLDER", help="Training images to compare them with, each with its prompt beside."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sampling steps; the pipeline's own by default.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale when sampling; the pipeline's own by default.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """How well are memorized prompts told from others on this model, by our score and by published ones?

    Writes index.html, benchmark.json and the calibration. Prompts that are among the memorized ones, too, are left out
    of the negatives. Can be stopped: the same command goes on where it was. Exit code: 0 measured, 2 bad input, 5 the
    model cannot be judged, 130 stopped.
    """
    from ..benchmark.lists import Reading, read_lists
    from ..benchmark.reproduction import read_references

    check_alpha(alpha)
    options.check_guidance(guidance)
    compared = options.reference_of(reference)
    _check_calibration(calibration, calibrate_on)
    _check_images(generate, {"--references": references, "--steps": steps, "--guidance": guidance})
    reading = Reading(format, column, delimiter, kinds)
    lists = read_lists(memorized, negatives, reading)
    given, benign = _calibrations(calibration, calibrate_on, lists, reading)
    images = None if references is None else read_references(references, lists.positives)
    notes = [*lists.notes, *([] if images is None else images.notes)]
    for note in notes:
        stderr().print(note, style="yellow", soft_wrap=True)
    make_folder(out)
    from ..benchmark.run import open_run
    from ..run_folder import locked

    with locked(out, "benchmark"):
        run = open_run(out, lists.texts, seed, lists.digests)
        denoiser = open_model(model, device, dtype, compared)
        work = Work(run, lists, denoiser, model=model, seed=seed, size=(height, width), batch_rows=batch_rows)
        try:
            work.prepare(given, benign, alpha, draws)
            if generate is not None:
                work.sample_with(generate, steps, guidance, references, images)
            work.tell_cost()
            document = work.finish(out / PAGE, out / REPORT, notes)
        except KeyboardInterrupt:
            words = f"stopped {work.so_far}, kept in {out}: the same command goes on from there"
            stderr().print(words, style="yellow", soft_wrap=True)
            return EXIT_STOPPED
    if as_json:
        write_document(document)
    else:
        show(document, out / PAGE)
    return EXIT_CLEAR


# --- before any work ---


def _check_calibration(calibration: str, calibrate_on: str | None) -> None:
    if calibration == NONE:
        raise InputError("without a calibration there is neither our score nor a verdict: leave out --calibration none")
    if calibration != AUTO and calibrate_on is not None:
        raise InputError("--calibration and --calibrate-on exclude each other: give one of them")


def _check_images(generate: int | None, given: dict[str, Any]) -> None:
    if generate is None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} is for images: say how many of each memorized prompt with --generate N")
    elif generate == 1 and given["--references"] is None:
        raise InputError("one image of a prompt is like nothing: give --generate 2 or more, or --references")


def _calibrations(
    calibration: str, calibrate_on: str | None, lists: "Lists", reading: "Reading"
) -> tuple["Calibration | None", list[str] | None]:
    """Returns the calibration that was named, and the prompts to calibrate with that were, if any."""
    from ..benchmark.lists import read_benign, without
    from ..calibration import Calibration
    from ..calibration_file import LEAST

    if calibrate_on is not None:
        found, notes = read_benign(calibrate_on, reading)
        texts = without(found, lists.texts)
        lists.notes.extend(notes)
        if len(texts) < LEAST:
            compared = f", {len(found) - len(texts)} of them are compared here" if len(texts) < len(found) else ""
            raise InputError(
                f"{calibrate_on} has {len(texts)} prompts to calibrate with{compared}: give at least {LEAST} others"
            )
        if len(texts) < len(found):
            lists.notes.append(
                f"{calibrate_on}: {len(found) - len(texts)} prompts are compared here, and calibrate nothing"
            )
        return None, texts
    if calibration == AUTO:
        return None, None
    given = Calibration.load(calibration)
    for file, digest in lists.whole.items():
        if digest == given.prompts:
            raise InputError(
                f"{calibration} was made of the prompts of {file}, which it would be tried on: calibrate on others, "
                "e.g. with --calibrate-on FILE"
            )
    return given, None
