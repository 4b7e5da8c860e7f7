"""A file that has no sidecar of its own, but is named as evidence by that of an image beside it: a map, a mask."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ..envelope import payload
from ..errors import InputError, SidecarError
from ..images import SIDECAR, read_image
from ..printable import printable
from ..strict_json import parse_json
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
    held = None if checker is None else checker.beside.get(path.parent)
    if held is None:
        held = _sidecars(path.parent)
        if checker is not None:
            checker.beside[path.parent] = held
    owners = list(_owners(path.name, held))
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


def _sidecars(folder: Path) -> list[tuple[Path, bytes, bytes]]:
    """The sidecars of a folder that are looked through: path, bytes, and the statement's bytes in them, unchecked."""
    try:
        paths = sorted(islice(folder.glob(f"*{SIDECAR}"), MOST_SIDECARS + 1))
    except (OSError, ValueError):
        return []
    left, found = MOST_BYTES, []
    for path in paths if len(paths) <= MOST_SIDECARS else []:
        try:
            data = read_if_there(path, min(left, LIMIT), "sidecar") or b""
        except SidecarError:
            continue
        left -= len(data)
        text = data
        if b'"payload"' in data:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                text = payload(parse_json(data))
        found.append((path, data, text))
    return found


def _owners(name: str, sidecars: Iterable[tuple[Path, bytes, bytes]]) -> Iterator[tuple[Path, set[str]]]:
    """Images whose sidecars name a file, with the digests that they give for it."""
    spelt = [json.dumps(name, ensure_ascii=kind).encode("utf-8", "replace") for kind in (True, False)]
    for path, data, text in sidecars:
        if not any(one in text for one in spelt):  # parsing takes longest: not where it cannot name it
            continue
        with suppress(SidecarError):
            digests = {entry["sha256"] for entry in parse(data)["predicate"]["evidence"] if entry["name"] == name}
            if digests:
                yield path.with_name(path.name.removesuffix(SIDECAR)), digests
