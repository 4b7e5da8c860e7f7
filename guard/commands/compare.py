"""`cryptomnesia compare`: is an image a copy of one of mine?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..errors import CryptomnesiaError, InputError
from ..files import remove, write_atomically
from ..images import png
from ..printable import printable
from . import options
from .console import EXIT_CLEAR, EXIT_MEMORIZED, EXIT_NO_VERDICT, progress, stderr, stdout
from .documents import write_document
from .files import make_folder, write_text
from .models import check_alpha

if TYPE_CHECKING:
    from ..similarity import Comparison, ImageComparison

PAGE, REPORT, PICTURES, INDEX = "compare.html", "compare.json", "copies", "index"
MOST_PICTURES = 500  # copies that are drawn
MOST_LINES = 20  # of the terminal
LARGEST = 256 << 20  # bytes of an earlier report


def compare(
    images: Annotated[
        list[Path], typer.Option("--images", "-i", metavar="FILE|FOLDER", help="Images in question; repeat for more.")
    ],
    references: Annotated[
        list[Path],
        typer.Option(
            "--references", "-r", metavar="FILE|FOLDER", help="Your images, with all folders in them; repeat."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where results are kept.")],
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx|FOLDER|built-in",
            help="An image encoder besides (SSCD, DINO, CLIP): finds what is similar.",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of unrelated images that may be called copies.")] = 0.01,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index", metavar="FOLDER", help="Where what is known of the references is kept; in --out if not given."
        ),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Is an image a copy of one of mine, or of a part of one? Looks at images alone, and needs no model.

    Finds copies that were encoded anew, resized, recoloured, cropped, flipped, turned or pasted into others, and what a
    model drew anew from memory. Writes a page with each image beside the reference, compare.json, and pictures with
    masks of the copies. References are read once: a second run reads only what is new. Exit code: 0 no copy; 2 bad
    input; 3 a copy was found; 5 no verdict: too few references to tell, and nothing plainly a copy; 130 stopped.
    """
    from ..similarity import ReferenceIndex
    from ..similarity import compare as compare_images
    from ..similarity.index import BUILT_IN

    check_alpha(alpha)
    if encoder is not None and str(encoder) != BUILT_IN and not encoder.exists():
        raise InputError(
            f"there is no encoder {printable(encoder)}: give an .onnx file, or a folder of transformers' CLIP"
        )
    for place in (*images, *references):
        if not place.exists():
            raise InputError(f"there is no image or folder {printable(place)}: check the name")
    make_folder(out)
    with progress("images") as bar:
        watch = _Bars(bar, ["reading references"])
        known = ReferenceIndex.build(list(references), store=index or out / INDEX, encoder=encoder, progress=watch)
        watch = _Bars(bar, ["references among each other", "comparing"])
        answer = compare_images(list(images), known, alpha=alpha, progress=watch)
        if not answer.images:
            reasons = "; ".join(list(answer.rejected.values())[:3])
            raise InputError(f"none of the images can be read: {reasons}")
        names = _write_pictures(answer, out)
        _write_page(answer, out, images, references)
    document = _document(answer, names)
    write_text(out / REPORT, json.dumps(document, indent=1) + "\n")
    _show(answer, document, as_json)
    if not as_json:
        stderr().print(f"kept in {out}: {PAGE}, {REPORT}", soft_wrap=True, style="dim")
    return {"copies": EXIT_MEMORIZED, "none": EXIT_CLEAR}.get(answer.verdict, EXIT_NO_VERDICT)


class _Bars:
    """A bar for each stage, one after the other."""

    def __init__(self, bar: Any, names: list[str]):
        self.bar, self.names = bar, names
        self.task: Any = None
        self.last = 0

    def __call__(self, done: int, total: int | None) -> None:
        if self.task is None or (done <= self.last and self.names):
            self.task = self.bar.add_task(self.names.pop(0) if self.names else "comparing", total=total)
        self.last = done
        self.bar.update(self.task, completed=done, total=total)


def _document(answer: "Comparison", names: dict[str, dict[str, str]]) -> dict[str, Any]:
    document = answer.to_dict()
    for image in document["images"]:
        image["files"] = names.get(image["name"])
    return document


def _write_pictures(answer: "Comparison", out: Path) -> dict[str, dict[str, str]]:
    """Writes copies beside their references, and masks; removes those of an earlier run. Returns their names."""
    import numpy as np

    folder, names = out / PICTURES, {}
    for name in _earlier(out / REPORT):
        remove(folder / name)
    for number, image in enumerate(answer.copies[:MOST_PICTURES], 1):
        make_folder(folder)
        stem = f"{number:04d}"
        try:
            write_atomically(folder / f"{stem}.png", png(image.plot()))
        except CryptomnesiaError:  # a file that went away meanwhile; what was measured of it stands
            continue
        names[image.name] = {"picture": f"{stem}.png"}
        region = image.nearest[0].region
        if region is not None:
            write_atomically(
                folder / f"{stem}.mask.png", png(np.repeat(region[..., None], 3, 2).astype(np.uint8) * 255)
            )
            names[image.name]["mask"] = f"{stem}.mask.png"
    return names


def _earlier(report: Path) -> list[str]:
    """The names of pictures that an earlier run wrote."""
    from ..strict_json import read_object

    if not report.exists():
        return []
    document = read_object(report, LARGEST, "report", "give another --out, or remove it")
    files = [image.get("files") for image in document.get("images", []) if isinstance(image, dict)]
    found = [name for one in files if isinstance(one, dict) for name in one.values()]
    return [name for name in found if isinstance(name, str) and name[:4].isdigit() and name == Path(name).name]


def _write_page(answer: "Comparison", out: Path, images: list[Path], references: list[Path]) -> None:
    from .compare_page import ComparePage, render

    facts = [
        ("images", ", ".join(path.name for path in images)),
        ("references", ", ".join(path.name for path in references)),
        ("digest of the references", answer.identity),
        ("version", f"cryptomnesia {__version__}"),
    ]
    if answer.encoder is not None:
        facts.insert(2, ("encoder", Path(answer.encoder).name))
    write_text(out / PAGE, render(ComparePage.of(answer, facts)))


def _show(answer: "Comparison", document: dict[str, Any], as_json: bool) -> None:
    from ..similarity.result import shown_first

    if as_json:
        write_document(document)
        return
    console = stdout()
    console.print(Text(answer.headline(), style="bold"), soft_wrap=True)
    shown = shown_first(answer.images)
    grid = Table.grid(padding=(0, 2))
    for image in shown[:MOST_LINES]:
        grid.add_row(*_row(image), style="bold" if image.copy else "dim")
    console.print(grid)
    if len(shown) > MOST_LINES:
        console.print(Text(f"  and {len(shown) - MOST_LINES} more, see {REPORT}", style="dim"))
    for note in answer.notes():
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)


def _row(image: "ImageComparison") -> list[Text]:
    p_value = "" if image.p_value is None else f"p {image.p_value:.2g}"
    return [Text(printable(Path(image.name).name, 60)), Text(image.headline()), Text(p_value)]
