"""`cryptomnesia audit`: every check over a prompt log or a folder of images, resumable."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options
from .attribute import pairs
from .console import EXIT_STOPPED
from .models import AUTO, DEMO, NONE, check_alpha, open_guard, open_model
from .prompts import tell
from .watch import Watch, stopping

if TYPE_CHECKING:
    from ..audit.run import Audit
    from ..audit.worker import Job

audit = typer.Typer(name="audit", no_args_is_help=True, add_completion=False)

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Results go here; the same command goes on where it was.")
]
EngineName = Annotated[str, typer.Option("--engine", metavar="[local|ray]", help="One process, or a Ray cluster.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Ray workers, each with the model; by default one per GPU, else per CPU."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors are still told.")]
Json = Annotated[bool, typer.Option("--json", help="Progress and outcome as JSON lines on stdout.")]


@audit.command()
def prompts(
    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Prompts: .txt, .csv, .tsv, .json, .jsonl or .parquet, also .gz of these.",
        ),
    ],
    out: Out,
    model: options.Model = DEMO,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    format: options.Format = None,
    column: options.Column = "prompt",
    delimiter: options.Delimiter = None,
    calibration: options.Calibration = "auto",
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Noise draws; by default as calibrated, else 4.")
    ] = None,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    alignment: Annotated[
        bool, typer.Option(help="Also measure aniso, which takes part in no verdict and doubles the time.")
    ] = False,
    engine: EngineName = "local",
    workers: Workers = None,
    gallery: Annotated[int, typer.Option(min=0, max=100, help="Worst prompts that the report shows images of.")] = 12,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Is the model likely to reproduce training data for any of these prompts? Writes report.html.

    Every prompt has noise of its own, by its text and --seed, so that its numbers hang on nothing else. Exit code: 0
    none stands out, 3 some do at a false discovery rate of 5 % over the whole run, else 5 if some have no verdict, 2
    bad input, 130 stopped.
    """
    from ..audit.inputs import Prompts
    from ..audit.prompts import PromptJob
    from ..audit.report import PAGE, write_report
    from ..audit.run import Audit
    from ..protocols import PipelineDenoiser

    check_alpha(alpha)
    compared = options.reference_of(reference)
    model = _absolute(model)
    calibration = calibration if calibration in (AUTO, NONE) else str(Path(calibration).absolute())
    placed = {"device": device, "dtype": dtype, "reference": compared}
    opened = partial(open_guard, model, calibration, alpha, draws, (height, width), **placed)
    job = PromptJob(opened, seed, (height, width), alignment)
    settings = {"model": Path(model).name, "column": column, "draws": draws, "alpha": alpha}
    settings["reference"] = compared
    named = None if calibration in (AUTO, NONE) else calibration
    digests = {"model_files": _digest(model), "calibration_file": _digest(named)}
    source = Prompts(input, column, format, delimiter)
    run = Audit(source, job, out, settings, digests)
    tell(source.file)
    watch, fresh = Watch(run, quiet, as_json), not run.complete
    if not _measured(run, job, engine, workers, watch):
        return EXIT_STOPPED
    report = out / PAGE
    if fresh or not report.exists():
        guard, _ = opened()
        pipe = guard.denoiser.pipe if gallery and isinstance(guard.denoiser, PipelineDenoiser) else None
        with watch.making(min(gallery, run.total) if pipe else 0) as progress:
            write_report(out, pipe=pipe, gallery=gallery, calibration=guard.calibration, progress=progress)
    return watch.outcome(report)


@audit.command()
def images(
    input: Annotated[Path, typer.Option("--input", "-i", metavar="FOLDER", help="Images, also in subfolders.")],
    out: Out,
    trust: Annotated[
        list[Path] | None, typer.Option("--trust", metavar="CERT.pem", help="Certificate of a trusted signer; repeat.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="NAME=MODEL", help="A model that may have made them; repeat for each."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", "-c", metavar="FILE", help="NAME.attribution.safetensors, for the candidates."),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", "-l", metavar="FOLDER", help="Signatures to compare images under --model with."),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option("--references", "-r", metavar="FOLDER", help="Images of the same kind, surely not trained on."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model for --library and --references.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    engine: EngineName = "local",
    workers: Workers = None,
    gallery: Annotated[int, typer.Option(min=0, max=100, help="Images that the report shows.")] = 12,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """What do sidecars say of these images, who may have made them, was a model trained on them?

    Writes report.html. Each question needs what it is asked with: --candidate and --calibration for who made an image,
    --library and --model for the closest signature, --references and --model for a test of all images together. Exit
    code: 0 all fit their sidecars, 4 some do not, 3 the model was likely trained on some, 5 nothing is known of them, 2
    bad input, 130 stopped.
    """
    from ..audit.images import ImageJob, membership_of
    from ..audit.inputs import Images
    from ..audit.report import PAGE, write_report
    from ..audit.run import Audit

    candidates = {name: _absolute(place) for name, place in pairs(candidate or [], "--candidate", "MODEL").items()}
    if (calibration is None) != (not candidates):
        raise InputError("candidates are asked with a calibration: give --candidate and --calibration together")
    if (library is None and references is None) != (model is None):
        raise InputError(
            "--library and --references are asked with a model: give --model with one of them, or with both"
        )
    model, folder = model and _absolute(model), input.absolute()
    trusted = tuple(path.absolute() for path in trust or ())
    calibration, library = calibration and calibration.absolute(), library and library.absolute()
    opened = partial(open_model, device=device, dtype=dtype)
    job = ImageJob(folder, trusted, candidates, calibration, model, library, opened)
    digests = {"calibration_file": _digest(calibration), "model_files": _digest(model), "library": _digest(library)}
    digests["references"] = None if references is None else Images(references).digest()
    digests |= {f"the candidate {name}": _digest(place) for name, place in candidates.items()}
    digests |= {f"the certificate {path}": _digest(path) for path in trusted}
    source = Images(folder)
    run = Audit(source, job, out, digests=digests)
    watch, fresh = Watch(run, quiet, as_json), not run.complete
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, about images that the rejects tell of
        if not _measured(run, job, engine, workers, watch, lambda: membership_of(job, source, references, out)):
            return EXIT_STOPPED
    report = out / PAGE
    if fresh or not report.exists():
        write_report(out, gallery=gallery, images=folder)
    return watch.outcome(report)


def _absolute(model: str) -> str:
    """Returns a model's name that holds in any working folder, since workers may have another one."""
    return model if model == DEMO else str(Path(model).expanduser().absolute())


def _digest(path: str | Path | None) -> str | None:
    from ..audit.manifest import files_digest

    return None if path in (None, DEMO) else files_digest(Path(path))


def _measured(
    run: "Audit",
    job: "Job",
    engine: str,
    workers: int | None,
    watch: Watch,
    together: Callable[[], dict[str, Any] | None] = lambda: None,
) -> bool:
    """Does what is missing, and at last what asks about all rows together; returns False if the user stopped it."""
    from ..audit.run import open_engine

    if run.manifest.finished and run.complete:
        return True
    try:
        if not run.complete:
            counting, stops = watch.counting(run.total, run.done), stopping(run, watch)
            with open_engine(engine, job, workers) as opened, stops, counting as update:
                for done in run.steps(opened):
                    update(done)
        run.finish(membership=together())
    except KeyboardInterrupt:
        watch.stopped()
        return False
    return True
