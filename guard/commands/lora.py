"""`cryptomnesia lora`: which prompts does a LoRA memorize that its base does not?"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..printable import printable_line
from . import options
from .console import (
    EXIT_CLEAR,
    EXIT_MEMORIZED,
    EXIT_NO_VERDICT,
    following,
    p_text,
    progress,
    stderr,
    stdout,
    tell_cost,
)
from .documents import write_document
from .files import make_folder, write_text
from .models import DEMO, check_alpha, open_model

if TYPE_CHECKING:
    from ..denoiser import Denoiser
    from ..localization import Location
    from ..lora import Applier, Candidate, LoraCheck, LoraFile

REPORT, PAGE, MAPS, SHOWN = "lora.json", "index.html", 3, 20
SCHEMA = "cryptomnesia/lora/1"


def lora(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The LoRA's .safetensors file, or its folder.")],
    model: Annotated[
        str, typer.Option("--model", "--base", "-m", metavar="MODEL", help="The base that the LoRA was made for.")
    ] = "demo",
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="Prompts to ask about, or a folder with captions; else the LoRA's own."
        ),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option("--strength", "-s", help="A strength to try; repeatable. 0.5 and 1 by default; 0 is always."),
    ] = None,
    benign: Annotated[
        str | None,
        typer.Option("--benign", metavar="FILE", help="At least 100 benign prompts; by default a shipped list."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="Most prompts that are asked about.")] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Also write a page there, with maps.")
    ] = None,
    maps: Annotated[
        int | None, typer.Option(min=0, max=20, help=f"Images with maps on the page; {MAPS} by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Sampling steps of these images.")] = 50,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    alpha: Annotated[float, typer.Option(help="False-alarm rate to promise per prompt.")] = 0.01,
    draws: options.Draws = 4,
    seed: options.Seed = 0,
    height: options.Height = None,
    width: options.Width = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it costs, and stop.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Which prompts does a LoRA memorize that its base does not? Nothing is sampled to find out, but for the maps.

    Prompts come from the file's own metadata, as kohya's scripts write them, or from --prompts. Benign prompts with the
    LoRA on say what is normal. Model and file stay as they are.

    Exit code: 0 clear, 3 some are likely memorized by the LoRA, 5 no verdict, 2 bad input, 130 stopped.
    """
    from ..lora import read_lora
    from ..lora.checking import STRENGTHS, check_strengths, normal_prompts
    from ..lora.prompts import require

    check_alpha(alpha)
    strengths = check_strengths(strength or STRENGTHS)
    compared = options.reference_of(reference)
    read = read_lora(file)  # first: what is broken is told before a large model is read
    if prompts is None:
        chosen, notes = require(read.prompts(most), read.path.name), []
    else:
        from ..lora import prompts_in

        chosen, notes = prompts_in(prompts, most)
    normal = normal_prompts(_benign(benign, model), alpha, draws)
    for note in [*read.notes, *notes]:
        stderr().print(Text(printable_line(note), style="yellow"), soft_wrap=True)
    if out is not None and not dry_run:
        make_folder(out)
    from ..lora import Applier, check_lora

    denoiser = open_model(model, device, dtype, compared)
    applier = Applier(denoiser, read)
    pictures = 0 if out is None else MAPS if maps is None else maps
    rows = _tell_cost(denoiser, len(normal) + len(chosen), len(strengths), draws, pictures)
    if dry_run:
        _show_plan(read, chosen, strengths, rows, as_json)
        return EXIT_CLEAR
    size: dict[str, Any] = {"height": height, "width": width}
    settings: dict[str, Any] = {"strengths": strengths, "benign": normal, "draws": draws, "seed": seed, "alpha": alpha}
    with progress("prompts") if not as_json else nullcontext() as bar:
        check = check_lora(
            denoiser,
            read,
            chosen,
            progress=following(bar, bar.add_task("checking", total=None)) if bar else None,
            **settings,
            **size,
        )
    document: dict[str, Any] = {"schema": SCHEMA, **check.to_dict(), "model": model}
    if out is not None:
        from .lora_page import write_page

        pictured = _locations(applier, check, pictures, steps, size, as_json)
        write_page(out / PAGE, check, pictured, model)
        write_text(out / REPORT, _json(document))
    if as_json:
        write_document(document)
    else:
        _show(check)
        if out is not None:
            stderr().print(Text(f"kept in {out}: {PAGE}, {REPORT}", style="dim"), soft_wrap=True)
    return _exit_code(check)


def _benign(file: str | None, model: str) -> list[str] | None:
    if file is None and model == DEMO:
        from ..demo.captions import benign

        return benign()
    if file is None:
        return None
    from .prompts import PromptSource

    source = PromptSource(file=file)
    texts = list(source)
    source.tell()
    return texts


def _tell_cost(denoiser: "Denoiser", texts: int, strengths: int, draws: int, pictures: int) -> int:
    from ..cost import rows_per_image
    from ..lora.maps import rows_of_map
    from ..lora.measuring import rows_of

    rows = rows_of(texts, strengths, draws, denoiser)
    rows += pictures * rows_of_map(denoiser.reference == "empty branch")
    work = f"{texts} prompts at {strengths} strengths" + (f" and {pictures} images with maps" if pictures else "")
    tell_cost(work, rows, rows / rows_per_image(denoiser))
    return rows


def _show_plan(read: "LoraFile", chosen: "list[Candidate]", strengths: list[float], rows: int, as_json: bool) -> None:
    if as_json:
        prompts = [candidate._asdict() for candidate in chosen]
        facts = {"lora": read.name, "format": read.format, "ranks": read.ranks}
        write_document({"schema": SCHEMA, **facts, "strengths": strengths, "prompts": prompts, "forward_rows": rows})
        return
    console = stdout()
    console.print(Text(f"{read.name}: {_about(read.format, read.ranks)}, {len(chosen)} prompts", style="bold"))
    for candidate in chosen[:SHOWN]:
        console.print(Text(f"  {candidate.text}  ({candidate.source})"), soft_wrap=True)
    _rest(len(chosen) - SHOWN)


def _about(format: str, ranks: list[int]) -> str:
    return format + (f", rank {', '.join(map(str, ranks[:6]))}" if ranks else "")


def _locations(
    applier: "Applier", check: "LoraCheck", count: int, steps: int, size: dict[str, Any], as_json: bool
) -> "list[Location]":
    from ..lora.maps import locate_finding

    worst = [prompt for prompt in check.ordered if prompt.finding != "memorized by the base"][:count]
    found = []
    for number, prompt in enumerate(worst, 1):
        with progress("steps") if not as_json else nullcontext() as bar:
            task = following(bar, bar.add_task(f"map {number} of {len(worst)}", total=steps)) if bar else None
            found.append(locate_finding(applier, check, prompt, steps=steps, progress=task, **size))
    return found


def _show(check: "LoraCheck") -> None:
    from ..lora.results import WORDS

    console = stdout()
    console.print(Text(check.headline(), style="bold"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    names = ["base" if strength == 0 else f"at {strength:g}" for strength in check.strengths]
    grid.add_row(*names, "", "", style="dim")
    for prompt in check.ordered[:SHOWN]:
        styles = {"memorized": "bold red", "unsure": "yellow", "memorized by the base": "yellow"}
        grid.add_row(
            *(p_text(cell.shown) for cell in prompt.cells),
            Text(WORDS[prompt.finding], style=styles.get(prompt.finding, "green")),
            Text(prompt.text),
        )
    console.print(grid)
    _rest(len(check.prompts) - SHOWN)
    console.print(Text("  p-values: of the base alone, and of what the LoRA does at each strength", style="dim"))
    for line in check.remarks():
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)


def _rest(count: int) -> None:
    if count > 0:
        stdout().print(Text(f"  and {count} more, in --json and with --out", style="dim"), soft_wrap=True)


def _json(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=1) + "\n"


def _exit_code(check: "LoraCheck") -> int:
    if check.of("memorized"):
        return EXIT_MEMORIZED
    return EXIT_NO_VERDICT if check.of("unsure") else EXIT_CLEAR
