"""`cryptomnesia verify`: are these images still the ones that their provenance tells of, and who vouches for it?"""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..errors import InputError
from ..images import BUNDLE, SUFFIXES, no_images
from ..printable import printable, printable_line
from . import options
from .console import (
    EXIT_BAD_INPUT,
    EXIT_CHANGED,
    EXIT_CLEAR,
    EXIT_MEMORIZED,
    EXIT_NO_VERDICT,
    fail,
    following,
    progress,
    stderr,
    stdout,
)
from .documents import Results

if TYPE_CHECKING:
    from ..sidecar import Checker, Verification

SCHEMA = "cryptomnesia/verification/2"
CANNOT_TELL = "cannot tell"
# by result: exit code, sign, colour; the worst first
LOOKS = {
    "changed": (EXIT_CHANGED, "▲", "bold red"),
    CANNOT_TELL: (EXIT_BAD_INPUT, "?", "yellow"),
    "nobody vouches": (EXIT_NO_VERDICT, "–", "yellow"),
    "found again": (EXIT_MEMORIZED, "≈", "yellow"),
    "vouched for": (EXIT_CLEAR, "✓", "green"),
}


def verify(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES|FOLDERS...", help="Images, bundles of evidence (.bundle.json), or folders."),
    ],
    sidecar: Annotated[
        Path | None, typer.Option("--sidecar", "-s", metavar="FILE", help="The sidecar of a single image, elsewhere.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="CERT.pem",
            help="Certificates of signers or roots you trust, or a trust list; may be repeated. Those of `keys trust` "
            "are trusted anyway.",
        ),
    ] = None,
    revoked: Annotated[
        list[Path] | None,
        typer.Option(
            "--revoked", metavar="FILE", help="Revoked certificates: a CRL, or a serial number a line; may be repeated."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Look for the images in the store there, by their looks; by default in that of the settings.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page of all of it.")] = None,
    as_json: options.Json = False,
) -> int:
    """Are these images still the ones that their provenance tells of, and who vouches for it?

    An image is vouched for if someone you trust signed it, it is as it was signed, and so are the files that belong to
    it. Provenance is looked for in the image's own file and beside it, for maps and masks beside their image. Folders
    are looked through with all that is in them.

    Exit code, the worst of all: 4 some changed (image, signature, or a file that belongs to it), 2 of some it cannot be
    told (no image, no or a malformed provenance, something that cannot be checked), 5 nobody you trust vouches for some
    (unsigned, unknown signer, certificate not accepted, or a file that belongs to it is missing), 3 some were
    only found in the store, 0 all are vouched for.
    """
    from ..sidecar import Checker
    from ..sidecar.keys import STORE, setting, trusted

    if sidecar is not None and (len(images) > 1 or images[0].is_dir()):
        raise InputError(f"--sidecar goes with one image, not {len(images)} names: verify them one by one")
    named = [path for path in images if not path.is_dir()]
    paths = [*named, *(path for folder in images if folder.is_dir() for path in _within(folder))]
    counts: Counter[str] = Counter()
    shown: list[Verification] = []
    with (
        Checker(trust=[*trusted(), *(trust or ())], revoked=revoked or (), store=store or setting(STORE)) as checker,
        Results(SCHEMA) as results,
        progress("images") as bar,
    ):
        moved = following(bar, bar.add_task("verifying", total=len(paths)))
        for number, path in enumerate(paths):
            try:
                found = _looked(checker, path, sidecar)
            except InputError as error:  # the other images are still to be seen
                fail(str(error))
                counts[CANNOT_TELL] += 1
                if as_json:
                    results.add({"image": str(path), "result": CANNOT_TELL, "error": str(error)})
                continue
            counts[found.result] += 1
            if as_json:
                results.add(found.to_dict())
            else:
                _show(found, whole=number < len(named))
            if html is not None:
                shown.append(found)
            moved(number + 1, len(paths))
        results.summary = dict(counts)
    if len(paths) > len(named) and not as_json:
        words = ", ".join(f"{counts[result]} {result}" for result in LOOKS if counts[result])
        stdout().print(Text(f"{len(paths)} images: {words}"))
    if html is not None:
        _write_page(html, shown)
    return next((code for result, (code, _, _) in LOOKS.items() if counts[result]), EXIT_CLEAR)


def _within(folder: Path) -> list[Path]:
    """The bundles in a folder, and all images in it and in those below it."""
    bundles = sorted(path for path in folder.glob(f"*{BUNDLE}") if not path.name.startswith("."))
    return [*bundles, *images_in(folder)]


def images_in(folder: Path) -> list[Path]:
    """Returns the images in a folder and in those below it, in order of their names; hidden ones are left out.

    Raises InputError where there are none.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(files) if _is_image(name)]
    if not found:
        raise no_images(folder)
    return found


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in (*SUFFIXES, ".avif") and not name.startswith(".")


def _looked(checker: "Checker", path: Path, sidecar: Path | None) -> "Verification":
    from ..sidecar import verify_bundle, verify_evidence

    if path.name.endswith(BUNDLE):
        return verify_bundle(path, checker)
    found = checker.verify(path, sidecar)
    if found.sidecar == "missing" and found.signature == "none" and found.embedded == "none" and sidecar is None:
        return verify_evidence(path, checker=checker) or found
    return found


def _show(verification: "Verification", *, whole: bool) -> None:
    """Prints the result and, if it shall be `whole`, what it rests on."""
    _, sign, style = LOOKS[verification.result]
    console = stdout()
    title = Text(f"{sign} {verification.headline}", style=style)
    console.print(title.append(f"  {printable_line(verification.image)}", style="default"), soft_wrap=True)
    for line in verification.lines if whole else ():
        console.print(Text(f"  {line}"), soft_wrap=True)


def _write_page(path: Path, shown: list["Verification"]) -> None:
    from ..files import write_file
    from .verify_page import page_of

    write_file(path, page_of(shown).encode("utf-8", "replace"), "page")
    stderr().print(Text(f"the page is in {printable(path)}"), soft_wrap=True)
