"""`cryptomnesia disclose`: does what a folder, a workflow or today's settings produce carry what laws ask for?"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..errors import CryptomnesiaError, InputError, UnsignedWarning
from ..printable import printable
from . import options
from .console import EXIT_BAD_INPUT, EXIT_CHANGED, EXIT_CLEAR, fail, following, progress, stdout
from .documents import write_document
from .verify import images_in
from .workflows import saving_nodes

if TYPE_CHECKING:
    from ..sidecar.disclosure import Disclosure

SCHEMA = "cryptomnesia/disclosure/1"
MOST_WORKFLOW = 50 << 20  # bytes


def disclose(
    check: Annotated[
        Path,
        typer.Option(
            "--check",
            metavar="IMAGE|FOLDER|WORKFLOW.json|MODEL",
            help="Images as they are; what a ComfyUI workflow would save; or what `guard.save(..., embed=True)` would "
            "write for the pipeline in a diffusers folder, with today's key and settings.",
        ),
    ],
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", metavar="CERT.pem", help="Certificates that you trust, beside those of `keys trust`."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Does what this produces carry what laws on AI-made content ask for? A table of fields, and what is missing.

    It tells what a file carries, and gives no legal advice. Nothing of a model is loaded.

    Exit code: 0 all that is asked for is there and valid, 4 something is missing, 2 it cannot be told.
    """
    from ..sidecar import Checker
    from ..sidecar.disclosure import DUTIES, disclosure_of
    from ..sidecar.keys import trusted

    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Checker(trust=[*trusted(), *(trust or ())]) as checker:
        paths = _images_of(check, Path(folder), notes)
        found: list[Disclosure] = []
        failed = 0
        with progress("images") as bar:
            moved = following(bar, bar.add_task("looking", total=len(paths)))
            for number, path in enumerate(paths):
                try:
                    found.append(disclosure_of(path, checker))
                except InputError as error:
                    fail(str(error))
                    failed += 1
                moved(number + 1, len(paths))
    lacking = {duty.name: sorted({name for one in found for name in one.missing(duty)}) for duty in DUTIES}
    if failed and not found:
        return EXIT_BAD_INPUT
    if as_json:
        results = [one.to_dict() for one in found]
        write_document({"schema": SCHEMA, "results": results, "notes": notes, "missing": lacking})
    else:
        _show(check, found, notes)
    if failed:
        return EXIT_BAD_INPUT
    return EXIT_CHANGED if notes or any(lacking.values()) else EXIT_CLEAR


def _images_of(target: Path, folder: Path, notes: list[str]) -> list[Path]:
    """The images to look at: those that are there, or one that is saved as the target would; or notes on why not."""
    if target.is_dir() and not (target / "model_index.json").is_file():
        return images_in(target)
    if target.is_dir():
        return [_example(folder, _model_of(target))]
    if target.suffix.lower() != ".json":
        return [target]
    nodes = saving_nodes(target, MOST_WORKFLOW)
    for node in nodes:
        if not node.provenance:
            notes.append(f"the node {node.name} saves images that carry nothing: use Save Image with Provenance")
        elif not node.embeds:
            notes.append(f"the node {node.name} writes a file beside the image only: switch `embed` on")
    if not nodes:
        raise InputError(f"the workflow {printable(target)} has no node that saves images: give another")
    return [_example(folder, {"role": "model", "name": "the workflow's model"})] if any(n.embeds for n in nodes) else []


def _model_of(folder: Path) -> dict[str, Any]:
    return {"role": "model", "name": folder.resolve().name}


def _example(folder: Path, model: dict[str, Any]) -> Path:
    """A picture saved with today's key and settings, in place of one that the model would make."""
    from PIL import Image

    from ..sidecar import Generation, save
    from ..version import __version__

    path = folder / "example.png"
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)  # the table says so
        try:
            save(picture, path, None, Generation(f"cryptomnesia {__version__}", [model]), embed=True, store=False)
        except CryptomnesiaError as error:
            if not path.exists():
                raise
            fail(str(error))
    return path


def _show(target: Path, found: "Sequence[Disclosure]", notes: Sequence[str]) -> None:
    from ..sidecar.disclosure import DUTIES, FIELDS

    console = stdout()
    for note in notes:
        console.print(Text(f"▲ {note}", style="bold red"), soft_wrap=True)
    if found:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("field", "present", "valid", "where", "e.g."):
            table.add_column(name, overflow="fold")
        for number, name in enumerate(FIELDS):
            fields = [one.fields[number] for one in found]
            present, valid = sum(one.value is not None for one in fields), sum(one.valid for one in fields)
            example = next((one for one in fields if one.value is not None), fields[0])
            where = ", ".join(dict.fromkeys(one.where for one in fields if one.where)) or "–"
            says = printable(example.value or "", 60) + (f" ({example.note})" if example.note else "")
            style = "green" if valid == len(found) else "yellow" if present else "dim"
            table.add_row(
                *(Text(text, style=style) for text in (name, _of(present, found), _of(valid, found), where)), says
            )
        console.print(table)
        console.print()
    for duty in DUTIES:
        lacking = sorted({name for one in found for name in one.missing(duty)}, key=FIELDS.index)
        if not found:
            lacking = list(duty.fields)
        some = "all that a file can carry is there" if not lacking else f"missing: {', '.join(lacking)}"
        sign, style = ("✓", "green") if not lacking and not notes else ("▲", "bold red")
        console.print(Text(f"{sign} {duty.name}: {some}", style=style), soft_wrap=True)
        console.print(Text(f"  {duty.beyond}", style="dim"), soft_wrap=True)
    console.print(
        Text("This tells what files carry, and is no legal advice: see docs/disclosure.md.", style="dim"),
        soft_wrap=True,
    )


def _of(count: int, found: "Sequence[Disclosure]") -> str:
    if len(found) == 1:
        return "yes" if count else "no"
    return f"{count} of {len(found)}"
