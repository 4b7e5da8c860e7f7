"""`cryptomnesia identify`: whose denoiser is this?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from . import options
from .console import EXIT_CLEAR, following, progress, stdout
from .documents import write_document
from .images import image_files
from .models import open_model
from .signature import read_latents

if TYPE_CHECKING:
    from ..attribution import Identification


def identify(
    library: Annotated[
        Path, typer.Option("--library", "-l", metavar="FOLDER", help="What `cryptomnesia signature` wrote.")
    ],
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    images: Annotated[
        Path | None,
        typer.Option("--images", "-i", metavar="FOLDER", help="Images that the model made, to compare means instead."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of known models' images that may be unknown.")] = 0.05,
    svm: Annotated[bool, typer.Option("--svm", help="Also ask a linear classifier; needs --images.")] = False,
    as_json: options.Json = False,
) -> int:
    """Which model of a library is this? Compares how their denoisers err, not their files.

    Without --images the model is asked about the very latents that the library's models were asked about, so that even
    close relatives differ. Exit code: 0, whoever it is, also unknown; 2 bad input, 130 stopped.
    """
    from ..attribution import identify as look
    from ..attribution import load_library

    if svm and images is None:
        raise InputError("--svm needs images that the model made: give --images FOLDER")
    if not 0 < alpha < 1:
        raise InputError(f"--alpha is a share between 0 and 1, not {alpha}")
    entries = load_library(library)
    files = image_files([images]) if images is not None else []
    denoiser = open_model(model, device, dtype)
    with progress("models") as bar:
        latents = None
        if files:
            latents = read_latents(denoiser, files, bar, bar.add_task("reading images", total=len(files)))
        task = bar.add_task("comparing", total=None)
        identification = look(
            denoiser,
            entries,
            latents,
            alpha=alpha,
            svm=svm,
            progress=following(bar, task),
        )
    _show(identification, as_json)
    return EXIT_CLEAR


def _show(answer: "Identification", as_json: bool) -> None:
    if as_json:
        write_document(answer.to_dict())
        return
    console = stdout()
    console.print(Text(answer.headline(), style="bold"), soft_wrap=True)
    for note in answer.notes():
        console.print(Text(f"  {note}", style="yellow"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("model"), Text("distance"), Text("votes") if answer.votes else Text(""), style="dim")
    order = sorted(answer.distances.items(), key=lambda item: (item[1] is None, item[1]))
    for name, distance in order:
        words = "other latents" if distance is None else f"{distance:.2e}"
        votes = "" if answer.votes is None else f"{100 * answer.votes[name]:.0f} %"
        grid.add_row(Text(name), Text(words), Text(votes), style="bold" if name == answer.decision else "")
    console.print(grid)
    kind = "about the same latents" if answer.paired else f"p = {answer.p_value:.3f}" if answer.p_value else "means"
    console.print(Text(f"named if within {answer.threshold:.2e}; {kind}; {answer.images} images", style="dim"))
