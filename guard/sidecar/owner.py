"""A file that has no sidecar of its own, but is named as evidence by that of an image beside it: a map, a mask."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError, SidecarError
from ..images import SIDECAR, read_image
from ..printable import printable
from .digests import bytes_sha256
from .files import read_if_there
from .reading import parse
from .statement import LIMIT
from .verification import Checker, Verification, verify

MOST_SIDECARS = 200  # a folder with more of them is not looked through
MOST_BYTES = 2 << 20  # of all sidecars together that are read


def verify_evidence(
    path: str | Path, *, trust: Iterable[str | Path] = (), checker: Checker | None = None
) -> Verification | None:
    """Verifies a file that is named as evidence by the sidecar of an image in its folder; see `verify`.

    The file's bytes are compared with the digest there. The signature is that over the image and its sidecar.

    Args:
        path: The file.
        trust: PEM files with certificates of signers or their authorities that you trust.
        checker: What images are verified with, in place of `trust`, where there are many.

    Returns:
        What was found; None where no sidecar in the folder names the file.

    Raises:
        InputError: The file cannot be read.
        SidecarError: A certificate to trust cannot be read, or has expired.
        MissingPackage: jsonschema or Pillow is not installed.
    """
    path = Path(path)
    owners = list(_owners(path))
    if not owners:
        return None
    digest = bytes_sha256(read_image(path))
    image, wanted = next((owner for owner in owners if digest in owner[1]), owners[0])
    try:
        verification = verify(image, trust=trust) if checker is None else checker.verify(image)
    except InputError:  # the image is gone, and with it what a signature could be checked against
        return None
    same = wanted == {digest}
    state = "unchanged" if same else "not the one that its sidecar describes"
    line = f"Evidence of {printable(image.name)}: {state}. Verify that image for what is said about it."
    signed = [text for text in verification.lines if "sign" in text]
    return replace(
        verification,
        image=str(path),
        file="same" if same else "changed",
        pixels="unknown",
        evidence=[],
        lines=[line, *signed],
    )


def _owners(path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Images beside a file whose sidecars name it, with the digests that they give for it."""
    try:
        sidecars = sorted(islice(path.parent.glob(f"*{SIDECAR}"), MOST_SIDECARS + 1))
    except (OSError, ValueError):
        return
    left = MOST_BYTES
    for sidecar in sidecars if len(sidecars) <= MOST_SIDECARS else []:
        document, size = _read(sidecar, left, path.name)
        left -= size
        digests = {entry["sha256"] for entry in _evidence(document) if entry["name"] == path.name}
        if digests:
            yield sidecar.with_name(sidecar.name.removesuffix(SIDECAR)), digests


def _read(sidecar: Path, left: int, name: str) -> tuple[dict[str, Any] | None, int]:
    """What a sidecar says that mentions a name, and how many bytes were read."""
    try:
        data = read_if_there(sidecar, min(left, LIMIT), "sidecar") or b""
        # parsing takes longest: not for sidecars that cannot name it
        mentions = b'"payload"' in data or any(  # an envelope hides what it mentions
            json.dumps(name, ensure_ascii=kind).encode("utf-8", "replace") in data for kind in (True, False)
        )
        return parse(data) if mentions else None, len(data)
    except SidecarError:
        return None, 0


def _evidence(document: dict[str, Any] | None) -> list[dict[str, str]]:
    return [] if document is None else document["predicate"]["evidence"]
