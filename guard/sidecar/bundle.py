"""A folder of evidence that is handed to somebody: one in-toto statement names all its files by their digests.

With a key the statement is signed, in a DSSE envelope like a sidecar's; without one it shows what was changed by
accident only. Reference: in-toto Attestation Framework, spec/v1/statement.md.
"""

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .. import __version__
from ..envelope import is_envelope, payload
from ..errors import MissingPackage, SidecarError
from ..files import ABSENT, open_regular, read_file, require_file_name
from ..printable import printable
from ..strict_json import parse_json
from . import dsse, wording
from .digests import file_sha256
from .files import write_file
from .keys import Signer
from .result import Verification
from .statement import LIMIT, STATEMENT_TYPE
from .values import plain
from .verification import Checker

PREDICATE_TYPE = "urn:cryptomnesia:evidence:1"
MOST_FILES = 10_000
MOST_DEEP = 4  # folders


def write_bundle(
    path: str | Path, files: Iterable[str | Path], about: Mapping[str, Any], signer: Signer | None = None
) -> Path:
    """Writes the statement about a folder's files; write it last, after all of them.

    Args:
        path: Where to write it, in the folder; its name ends in .bundle.json.
        files: Files in that folder or below it.
        about: What they are evidence of; plain data for JSON, with a "title".
        signer: What signs it, e.g. what `load_signer` gives; None for a statement that nobody vouches for.

    Returns:
        The path.

    Raises:
        SidecarError: A file cannot be read, lies elsewhere or has an odd name, there are too many, or it cannot be
            written.
        MissingPackage: cryptography is not installed, where it is to be signed.
    """
    path = Path(path)
    folder, subjects = path.parent, []
    for file in sorted({Path(file) for file in files}):
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
        if not _is_inside(name):
            raise SidecarError(
                f"{printable(file)} cannot go into {printable(path)}: it lies elsewhere, or is called oddly"
            )
        subjects.append({"name": name, "digest": {"sha256": file_sha256(file)}})
    if not 0 < len(subjects) <= MOST_FILES:
        raise SidecarError(f"a bundle names 1 to {MOST_FILES:,} files, not {len(subjects):,}: leave some out")
    created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    predicate = {"created": created, "generator": {"name": "cryptomnesia", "version": __version__}, "about": about}
    document = {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    data = (json.dumps(plain(document), indent=1) + "\n").encode()
    if len(data) > LIMIT // 2:  # an envelope takes a third more
        raise SidecarError(f"the statement {printable(path)} would be too large: name fewer files")
    write_file(path, data if signer is None else dsse.sealed(data, signer), "bundle")
    return path


def verify_bundle(path: str | Path, checker: Checker) -> Verification:
    """Compares the files of a folder with its bundle, and asks who signed it.

    Args:
        path: The .bundle.json file; the files lie in its folder, as it names them.
        checker: Certificates that are trusted and revoked.

    Returns:
        The answer; `evidence` tells of each file, and what concerns single images stays "unknown".

    Raises:
        InputError: The bundle cannot be read.
    """
    path = Path(path)
    data = read_file(path, LIMIT, "bundle")
    try:
        document = parse_json(data)
        envelope = document if is_envelope(document) else None
        document = document if envelope is None else parse_json(payload(envelope))
        wanted = _subjects(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _verification(
            path, "malformed", [], "none", None, [f"It is no bundle that can be used: {printable(error)}."]
        )
    state, sealed = "none", None
    if envelope is not None:
        try:
            sealed = dsse.judged(envelope, checker.anchors, checker.revoked)
            state = sealed.state
        except MissingPackage:
            state = "not checked"
    files = [(name, _compared(path.parent / name, digest)) for name, digest in wanted.items()]
    lines = [
        _title(document, files),
        *wording.files_that_differ(files),
        *wording.signed_envelope(state, sealed, "bundle"),
    ]
    return _verification(path, "found", files, state, None if sealed is None else sealed.signer, lines)


def _subjects(document: Any) -> dict[str, str]:
    """The files that a statement names, with their digests. Raises ValueError for what is none."""
    if document["_type"] != STATEMENT_TYPE or document["predicateType"] != PREDICATE_TYPE:
        raise ValueError("it is no statement about evidence of this version")
    wanted = {one["name"]: one["digest"]["sha256"] for one in document["subject"]}
    if not 0 < len(wanted) <= MOST_FILES or len(wanted) < len(document["subject"]):
        raise ValueError("it names no file, too many, or one twice")
    for name, digest in wanted.items():
        if not isinstance(name, str) or not isinstance(digest, str) or not _is_inside(name):
            raise ValueError(f"it names a file {printable(name, 80)} that no folder of evidence holds")
    return wanted


def _is_inside(name: str) -> bool:
    """Whether a name leads into the folder, on every system."""
    parts = PurePosixPath(name).parts
    try:
        return 0 < len(parts) <= MOST_DEEP and "/".join(map(require_file_name, parts)) == name
    except ValueError:
        return False


def _compared(path: Path, digest: str) -> str:
    try:
        open_regular(path).close()
        return "same" if file_sha256(path) == digest else "changed"
    except OSError as error:
        return "missing" if error.errno in ABSENT else "unreadable"
    except (SidecarError, ValueError):
        return "unreadable"


def _title(document: Mapping[str, Any], files: list[tuple[str, str]]) -> str:
    about = document["predicate"].get("about") or {}
    title = printable(about.get("title") or "nothing of what it is about", 300).rstrip(".")
    made = printable(document["predicate"].get("created"), 40)
    return f"A bundle of {len(files)} files, made at {made}. It says: {title}."


def _verification(
    path: Path, state: Any, files: list[tuple[str, str]], envelope: Any, signer: str | None, lines: list[str]
) -> Verification:
    return Verification(
        image=str(path),
        sidecar=state,
        file="unknown",
        pixels="unknown",
        signature="none",
        agreement=None,
        clock="unknown",
        evidence=files,
        claims=None,
        lines=lines,
        envelope=envelope,
        signer=signer,
    )
