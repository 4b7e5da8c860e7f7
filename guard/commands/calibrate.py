"""`cryptomnesia calibrate`: what benign prompts score on a model, so that checks can give verdicts."""

import math
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CalibrationError, InputError
from ..printable import printable
from ..prompts import BENIGN
from . import options
from .console import EXIT_CLEAR, EXIT_STOPPED, progress, stderr, stdout, tell_cost
from .documents import write_document
from .models import check_alpha, open_model
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..calibration_run import MeasuringRun

LEAST = 100


def calibrate(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it there, too: NAME.calibration.json."),
    ] = None,
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", "-p", metavar="FILE", help="Benign prompts like your own; by default a shipped list."
        ),
    ] = None,
    format: options.Format = None,
    column: options.Column = "prompt",
    delimiter: options.Delimiter = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Noise draws per prompt; 4 by default, 1 with --quick.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure 100 of the prompts at one draw: it costs two images, flags less.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Sampling steps of your images: a guard then costs least. By default where 50 of DDIM start."
        ),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            "--known", metavar="FILE", help="Memorized prompts of this model: learn from them, if that helps."
        ),
    ] = None,
    by_words: Annotated[
        bool,
        typer.Option(
            "--by-words", help="Also learn what score words lead to expect: flags more that is memorized in part."
        ),
    ] = False,
    seed: options.Seed = 0,
    alpha: Annotated[float, typer.Option(help="The false-alarm rate to promise.")] = 0.01,
    height: options.Height = None,
    width: options.Width = None,
    as_json: options.Json = False,
) -> int:
    """Measures benign prompts on a model once, so that checks of it can give verdicts.

    The result is kept in your cache folder, or in the one that CRYPTOMNESIA_HOME names, where all commands find it by
    model, dtype, size and draws. Can be stopped: the same command goes on where it was, and what is done is not done
    again. Exit code: 0 calibrated, 2 bad input, 5 the model cannot be judged, 130 stopped.
    """
    check_alpha(alpha)
    compared = options.reference_of(reference)
    if out is not None:
        _check_out(out)
    texts = _benign(PromptSource((), prompts or str(BENIGN), format, column, delimiter), alpha)
    from .. import calibration_store as store
    from ..calibration_run import ONE_WAY, extent

    if known is not None and by_words:
        raise InputError(ONE_WAY)
    texts, draws = extent(texts, draws, quick)
    memorized = None if known is None else _known(known, format, delimiter)
    if out is None or memorized is not None:
        store.make_folder()  # before the long work, not after it
    denoiser = open_model(model, device, dtype, compared)
    denoiser.require_guidance()
    from ..adapters.pipeline_call import first_timestep
    from ..calibration_misfit import binding_of
    from ..calibration_run import CalibrationRun
    from ..known_run import KnownRun

    shape = denoiser.latent_shape(height, width)
    time = None if steps is None else first_timestep(denoiser, steps)
    binding = binding_of(denoiser, shape, draws, time=time)
    kept = store.path_for(binding)
    partial = store.partial_for(binding) if out is None else out.with_name(out.name + ".partial")
    settings: dict[str, Any] = {"draws": draws, "seed": seed, "alpha": alpha, "latent_shape": shape, "time": time}
    weights = None
    if memorized is not None:
        learning = KnownRun(denoiser, memorized, texts, partial=store.known_for(binding), **settings)
        try:
            measure(learning)
        except KeyboardInterrupt:
            return _stopped(learning)
        taught = learning.learned()
        stderr().print(taught.words, soft_wrap=True)
        weights, texts = taught.weights, texts if taught.weights is None else learning.rest
    run = CalibrationRun(denoiser, texts, partial=partial, weights=weights, by_words=by_words, **settings)
    made = run.finished(out or kept) or run.finished(kept)
    if made is not None:
        stderr().print("nothing to measure: the same model, prompts and settings were calibrated before", style="dim")
        calibration = made
        if out is not None:
            made.save(out)
    else:
        try:
            measure(run)
            calibration = run.finish(out or kept)
        except KeyboardInterrupt:
            return _stopped(run)
    return _report(calibration, out, _keep(calibration, required=out is None), as_json)


def _stopped(run: "MeasuringRun") -> int:
    words = f"stopped after {run.done} of {run.total} prompts, kept in {run.partial}"
    stderr().print(f"{words}: the same command goes on from there", style="yellow", soft_wrap=True)
    return EXIT_STOPPED


def _known(file: str, format: str | None, delimiter: str | None) -> list[str]:
    """Returns the memorized prompts of a list, each once; errors as for benign ones."""
    from ..benchmark.lists import Reading, read_benign

    texts, notes = read_benign(file, Reading(format, None, delimiter))
    for note in notes:
        stderr().print(printable(note, 400), style="yellow", soft_wrap=True)
    return texts


def _keep(calibration: "Calibration", *, required: bool) -> Path | None:
    """Keeps a calibration where other commands find it.

    Args:
        calibration: What was measured.
        required: Whether it is kept nowhere else.

    Returns:
        The file's path; None where it could not be written and is kept elsewhere.

    Raises:
        CalibrationError: It could not be written and is required.
    """
    from ..calibration_store import keep

    try:
        return keep(calibration)
    except CalibrationError as error:
        if required:
            raise
        stderr().print(f"{error}; give the file as --calibration", style="yellow", soft_wrap=True)
        return None


def _report(calibration: "Calibration", out: Path | None, kept: Path | None, as_json: bool) -> int:
    path, threshold = out or kept, calibration.threshold
    if calibration.expectation is not None and not calibration.expectation.direction:
        stderr().print("what words lead to expect is not used, since they tell nothing of these prompts' scores")
    if as_json:
        summary = {"calibration": str(path), "kept": kept and str(kept), "n": calibration.n, "draws": calibration.draws}
        write_document(summary | {"alpha": calibration.alpha, "threshold": threshold})
    else:
        stdout().print(
            f"{path}: {calibration.n} benign prompts; above a score of {threshold:.2f} a prompt is called likely "
            f"memorized, at a false-alarm rate of {calibration.alpha:g}",
            soft_wrap=True,
        )
    return EXIT_CLEAR


def _check_out(out: Path) -> None:
    """Raises InputError unless a file can be written there; called before the long work, not after it."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file in it, e.g. {out / 'model.calibration.json'}")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to: make it first")


def _benign(source: PromptSource, alpha: float) -> list[str]:
    """Returns the benign prompts, each once: counted twice, they make a promise look firmer than it is.

    Raises:
        InputError: There are too few of them, for a calibration or for this alpha.
    """
    texts = list(dict.fromkeys(source))
    source.tell()
    if len(texts) < LEAST:
        raise InputError(
            f"{len(texts)} different benign prompts are too few: a calibration needs at least {LEAST}; "
            "give a longer list with --prompts"
        )
    needed = math.ceil(1 / alpha) - 1
    if len(texts) < needed:
        raise InputError(
            f"{len(texts)} benign prompts cannot promise a false-alarm rate of {alpha:g}: "
            f"give at least {needed} with --prompts, or raise --alpha"
        )
    return texts


def measure(run: "MeasuringRun") -> None:
    """Measures what is missing; says before what it will cost, and after the first prompts how long it will take."""
    from ..cost import rows_per_image

    console = stderr()
    if run.done:
        words = f"goes on after {run.done} of {run.total} prompts, kept in {run.partial}"
        console.print(words, soft_wrap=True)
    rows = run.forward_rows
    tell_cost(f"{run.total - run.done} prompts", rows, rows / rows_per_image(run.denoiser))
    before, started = run.done, monotonic()
    with progress("prompts") as bar:
        task = bar.add_task("calibrating", total=run.total, completed=run.done)
        for done in run.steps():
            bar.update(task, completed=done)
            if before < done < run.total:
                seconds = (monotonic() - started) / (done - before) * (run.total - done)
                console.print(f"at this speed, {duration(seconds)} more", soft_wrap=True)
                before = run.total  # said once


def duration(seconds: float) -> str:
    """Returns a time in words: "40 seconds", "3 minutes", "1.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds" if seconds >= 1.5 else "a second"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
