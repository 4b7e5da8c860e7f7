"""`cryptomnesia extract`: does a model hold these pictures?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..errors import InputError
from . import options
from .console import (
    EXIT_CLEAR,
    EXIT_MEMORIZED,
    EXIT_NO_VERDICT,
    EXIT_STOPPED,
    following,
    p_text,
    progress,
    stderr,
    stdout,
    tell_cost,
)
from .documents import write_document
from .files import make_folder
from .models import DEMO, NONE, check_alpha, open_guard
from .prompts import PromptSource

if TYPE_CHECKING:
    from ..extraction import Extraction, Extractor
    from ..guard import Guard

LARGEST_SEED = 2**64 - 1
LISTED = 20  # prompts that stand, in the terminal


def extract(
    images: Annotated[
        Path, typer.Option("--images", "-i", metavar="FOLDER", help="Your pictures, also in subfolders.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Results go here; the same command goes on where it was."),
    ],
    model: options.Model = DEMO,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    captions: Annotated[
        Path | None,
        typer.Option(
            "--captions",
            metavar="FILE",
            help="A table or JSON lines of file_name and prompt; the text file beside a picture counts anyway.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="WORDS", help="Words that call your work, e.g. your name; repeat."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", metavar="FILE", help="A list of such words; read as `check --file` does.")
    ] = None,
    titles: Annotated[bool, typer.Option("--titles", help="Also try each picture's file name as its title.")] = False,
    calibration: options.Calibration = "auto",
    suspicion: Annotated[
        float, typer.Option(help="Make images of prompts whose check has a p-value up to this; 1 for all of them.")
    ] = 0.05,
    alpha: Annotated[float, typer.Option(help="Share of false ones among the images that stand.")] = 0.05,
    seeds: Annotated[int, typer.Option(min=1, max=64, help="Images of each suspicious prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first image and of the checks.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sampling steps; the pipeline's own by default.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale; the pipeline's own by default.")
    ] = None,
    height: options.Height = None,
    width: options.Width = None,
    encoder: Annotated[
        Path | None, typer.Option("--encoder", metavar="FILE.onnx", help="A copy detector of your own, e.g. SSCD.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs.")] = False,
    as_json: options.Json = False,
) -> int:
    """Does this model hold your pictures? Makes images of their words where they look memorized, and compares.

    Writes index.html, extraction.json, the images beside your pictures, and extraction.bundle.json, which names all of
    them and is signed with your key (`cryptomnesia keys new`) if you have one, to hand to somebody. Can be stopped.

    Exit code: 0 nothing was found, 3 some pictures are likely reproduced, 5 no words, or no p-value, 2 bad input, 130
    stopped.
    """
    check_alpha(alpha)
    options.check_guidance(guidance)
    if not 0 < suspicion <= 1:
        raise InputError(f"--suspicion is a p-value above 0 and up to 1, not {suspicion:g}")
    compared = options.reference_of(reference)
    from ..extraction import Sampling, read_captions
    from ..sidecar import load_signer

    words = PromptSource(prompt or [], prompts) if prompt or prompts else None
    known = read_captions(images, captions, words or (), titles=titles)
    if words is not None:
        words.tell()
    for note in known.notes:
        stderr().print(note, style="yellow", soft_wrap=True)
    signer = load_signer()  # first: what is wrong with a key is found before the long work
    sampling = Sampling(seeds, seed, steps, guidance, height, width)
    guard, _ = open_guard(
        model,
        calibration,
        None,
        None,
        (height, width),
        device=device,
        dtype=dtype,
        reference=compared,
        required=suspicion < 1 and calibration != NONE,
    )
    _tell_cost(guard, known, sampling, suspicion)
    if dry_run:
        return EXIT_CLEAR
    make_folder(out)
    from ..extraction import Extractor
    from ..run_folder import locked

    with locked(out, "extraction"):
        work = Extractor(guard, known, out, sampling=sampling, suspicion=suspicion, alpha=alpha, encoder=encoder)
        try:
            found, files = _worked(work, "the built-in model" if model == DEMO else Path(model).name, signer)
        except KeyboardInterrupt:
            words_so_far = f"stopped, with what is done kept in {out}: the same command goes on from there"
            stderr().print(words_so_far, style="yellow", soft_wrap=True)
            return EXIT_STOPPED
    if as_json:
        write_document(found.to_dict() | {"files": files})
    else:
        _show(found, files, signed=signer is not None)
    return {"reproduced": EXIT_MEMORIZED, "cannot tell": EXIT_NO_VERDICT}.get(found.verdict, EXIT_CLEAR)


def _tell_cost(guard: "Guard", known: Any, sampling: Any, suspicion: float) -> None:
    from ..cost import in_words, rows_per_image
    from ..signals.draws import DRAWS

    denoiser, count = guard.denoiser, len(known.asked)
    draws = DRAWS if guard.calibration is None else guard.calibration.draws
    rows, each = count * draws + draws, rows_per_image(denoiser)
    pictures = f"{len(known.pictures):,} pictures, {len(known.uncaptioned):,} of them without words;"
    tell_cost(f"{pictures} checking {count:,} prompts", rows, rows / each)
    images = count * sampling.seeds
    most = in_words(images * (sampling.steps or 50) * each // 50, images * (sampling.steps or 50) / 50)
    then = "then" if suspicion == 1 else f"then, of those with a p-value up to {suspicion:g},"
    stderr().print(f"{then} {sampling.seeds} images each: at most {images:,} images ({most})", soft_wrap=True)


def _worked(work: "Extractor", model: str, signer: Any) -> "tuple[Extraction, dict[str, str]]":
    """Does what is missing, with a bar for each stage."""
    with progress("") as bar:
        _watch(bar, "checking prompts", work.check(), len(work.prompts))
        _watch(bar, "making images", work.make(), len(work.suspicious) * work.sampling.seeds)
        found = work.weigh(following(bar, bar.add_task("reading pictures", total=len(work.captions.pictures))))
        stage = following(bar, bar.add_task("locating", total=None))
        return found, work.write(found, model, signer, stage)


def _watch(bar: Any, name: str, steps: Iterator[int], total: int) -> None:
    moved = following(bar, bar.add_task(name, total=total))
    for done in steps:
        moved(done, total)


def _show(found: "Extraction", files: dict[str, str], *, signed: bool) -> None:
    console = stdout()
    console.print(Text(found.headline(), style="bold red" if found.standing else "bold"), soft_wrap=True)
    for one in found.standing[:LISTED]:
        copy = one.copies[0]
        line = Text(f"  {copy.kind} as {found.captions.name(copy.picture)}, p = {p_text(copy.p_value)}: ")
        console.print(line.append(one.asked.prompt), soft_wrap=True)
    if len(found.standing) > LISTED:
        console.print(f"  and {len(found.standing) - LISTED} more prompts, in {files['report']}", soft_wrap=True)
    for line in found.untried():
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    vouched = "signed with your key" if signed else "not signed: `cryptomnesia keys new` makes a key"
    stderr().print(Text(f"the page is {files['page']}; {files['bundle']} ({vouched}) names all of it"), soft_wrap=True)
