"""`cryptomnesia verify`: are these images still the ones that their sidecars tell of?"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..errors import InputError
from . import options
from .console import EXIT_BAD_INPUT, EXIT_CHANGED, EXIT_CLEAR, fail, stdout

if TYPE_CHECKING:
    from ..sidecar import Verification


def verify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images with a sidecar beside them.")],
    sidecar: Annotated[
        Path | None, typer.Option("--sidecar", "-s", metavar="FILE", help="The sidecar of a single image, elsewhere.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", metavar="CERT.pem", help="Certificate of a signer or root you trust; may be repeated."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Are these images still the ones that their sidecars tell of, and who vouches for it?

    Exit code: 0 all are intact, 4 some do not match their sidecar or its signature, 2 some cannot be judged (no image,
    no sidecar, or a malformed one) and none of the others fails to match. With --trust, an image also needs a signature
    by someone you trust: without one it counts as 4.
    """
    from ..sidecar import verify as look

    if sidecar is not None and len(images) > 1:
        raise InputError(f"--sidecar goes with one image, not {len(images)}: verify them one by one")
    codes = set()
    for image in images:
        try:
            found = look(image, sidecar, trust=trust or ())
        except InputError as error:  # the other images are still to be seen
            fail(str(error))
            codes.add(EXIT_BAD_INPUT)
            continue
        code = _code(found, trusting=bool(trust))
        _show(found, code, as_json)
        codes.add(code)
    return EXIT_CHANGED if EXIT_CHANGED in codes else max(codes)


def _code(found: "Verification", *, trusting: bool) -> int:
    if found.intact:
        if not trusting or found.vouched:
            return EXIT_CLEAR
        # whoever takes the signature away must not get away with it
        return EXIT_BAD_INPUT if found.signature.startswith("not checked") else EXIT_CHANGED
    # a signature can fail to match even where there is no sidecar
    return EXIT_CHANGED if found.sidecar == "found" or found.signature == "invalid" else EXIT_BAD_INPUT


def _show(found: "Verification", code: int, as_json: bool) -> None:
    """One JSON line, or the result and what it rests on."""
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict()) + "\n")
        return
    if code == EXIT_CLEAR:
        result, style = "✓ intact", "green"
    elif code == EXIT_BAD_INPUT:
        result, style = "? cannot be judged", "yellow"
    elif found.intact:
        result, style = "▲ intact, but signed by nobody you trust", "bold red"
    else:
        result, style = "▲ does not match", "bold red"
    console = stdout()
    console.print(Text(result, style=style).append(f"  {found.image}", style="default"), soft_wrap=True)
    for line in found.lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
