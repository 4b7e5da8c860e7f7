"""`cryptomnesia verify`: are these images still the ones that their sidecars tell of?"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..errors import InputError
from ..printable import printable_line
from . import options
from .console import EXIT_BAD_INPUT, EXIT_CHANGED, EXIT_CLEAR, EXIT_NO_VERDICT, fail, stdout

if TYPE_CHECKING:
    from ..sidecar import Verification

SCHEMA = "cryptomnesia/verification/1"
_CODES = {
    "intact": EXIT_CLEAR,
    "nobody vouches": EXIT_NO_VERDICT,
    "does not match": EXIT_CHANGED,
    "cannot be judged": EXIT_BAD_INPUT,
}
_WORST_FIRST = (EXIT_CHANGED, EXIT_BAD_INPUT, EXIT_NO_VERDICT)
_LOOKS = {
    "intact": ("✓", "green"),
    "nobody vouches": ("–", "yellow"),
    "does not match": ("▲", "bold red"),
    "cannot be judged": ("?", "yellow"),
}


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

    An image is intact if someone you trust signed it and its sidecar, both are as they were signed, and so are the
    files that belong to it. Maps and masks are looked for in the sidecar of the image beside them.

    Exit code: 0 all are intact, 4 some do not match (image, signature or a file that belongs to it changed), 2 some
    cannot be judged (no image, no or a malformed sidecar, something that cannot be checked), 5 they match, but nobody
    you trust vouches for some (unsigned, unknown signer, or a file that belongs to it is missing).
    """
    from ..sidecar import verify as look
    from ..sidecar import verify_evidence

    if sidecar is not None and len(images) > 1:
        raise InputError(f"--sidecar goes with one image, not {len(images)}: verify them one by one")
    codes, results = [], []
    for image in images:
        try:
            verification = look(image, sidecar, trust=trust or ())
            if verification.sidecar == "missing" and verification.signature == "none" and sidecar is None:
                verification = verify_evidence(image, trust=trust or ()) or verification
        except InputError as error:  # the other images are still to be seen
            if as_json:
                results.append({"image": str(image), "result": "cannot be judged", "error": str(error)})
            fail(str(error))
            codes.append(EXIT_BAD_INPUT)
            continue
        codes.append(_CODES[verification.result])
        if as_json:
            results.append(verification.to_dict())
        else:
            _show(verification)
    if as_json:
        sys.stdout.write(json.dumps({"schema": SCHEMA, "results": results}) + "\n")
    return next((code for code in _WORST_FIRST if code in codes), EXIT_CLEAR)


def _show(verification: "Verification") -> None:
    """Prints the result and what it rests on."""
    sign, style = _LOOKS[verification.result]
    console = stdout()
    title = Text(f"{sign} {verification.headline}", style=style)
    console.print(title.append(f"  {printable_line(verification.image)}", style="default"), soft_wrap=True)
    for line in verification.lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
