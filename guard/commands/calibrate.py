"""`cryptomnesia calibrate`: what benign prompts score on a model, so that checks can give verdicts."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..prompts import BENIGN
from . import options
from .console import EXIT_CLEAR, EXIT_STOPPED, progress, stderr, stdout
from .models import check_alpha, open_model
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..calibration_run import CalibrationRun

LEAST = 100


def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write: NAME.calibration.json.")],
    model: options.Model = "demo",
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", "-p", metavar="FILE", help="Benign prompts like your own; by default a shipped list."
        ),
    ] = None,
    format: options.Format = None,
    column: options.Column = "prompt",
    delimiter: options.Delimiter = None,
    draws: options.Draws = 4,
    seed: options.Seed = 0,
    alpha: Annotated[float, typer.Option(help="The false-alarm rate to promise.")] = 0.01,
    height: options.Height = None,
    width: options.Width = None,
    as_json: options.Json = False,
) -> int:
    """Measures benign prompts on a model once, so that checks of it can give verdicts.

    Can be stopped: the same command goes on where it was.
    """
    check_alpha(alpha)
    _check_place(out)
    texts = _benign(PromptSource((), prompts or str(BENIGN), format, column, delimiter), alpha)
    denoiser = open_model(model)
    from ..calibration_run import CalibrationRun

    partial = out.with_name(out.name + ".partial")
    shape = denoiser.latent_shape(height, width)
    run = CalibrationRun(denoiser, texts, draws=draws, seed=seed, alpha=alpha, partial=partial, latent_shape=shape)
    if run.done:
        words = f"goes on after {run.done} of {run.total} prompts, kept in {partial}"
        stderr().print(words, markup=False, soft_wrap=True)
    try:
        _measure(run)
        calibration = run.finish(out)
    except KeyboardInterrupt:
        stderr().print(
            f"stopped after {run.done} of {run.total} prompts, kept in {partial}: the same command goes on from there",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
        return EXIT_STOPPED
    if as_json:
        summary = {"calibration": str(out), "n": calibration.n, "alpha": calibration.alpha, "draws": calibration.draws}
        sys.stdout.write(json.dumps(summary | {"threshold": calibration.threshold}) + "\n")
    else:
        stdout().print(
            f"{out}: {calibration.n} benign prompts; above a score of {calibration.threshold:.2f} a prompt is called "
            f"likely memorized, at a false-alarm rate of {alpha:g}",
            markup=False,
            soft_wrap=True,
        )
    return EXIT_CLEAR


def _check_place(out: Path) -> None:
    """Before the long work, not after it."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file in it, e.g. {out / 'model.calibration.json'}")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to: make it first")


def _benign(source: PromptSource, alpha: float) -> list[str]:
    """The benign prompts, each once, since prompts that are counted twice make a promise look firmer than it is."""
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


def _measure(run: "CalibrationRun") -> None:
    with progress("prompts") as bar:
        task = bar.add_task("calibrating", total=run.total, completed=run.done)
        for done in run.steps():
            bar.update(task, completed=done)
