"""Writes a sidecar beside an image, or both."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..containers import media_type
from ..errors import CryptomnesiaError, InputError, MissingPackage, SidecarError
from ..files import remove, size_text
from ..images import MOST_BYTES, c2pa_path, sidecar_path
from . import neighbours
from .c2pa import sign
from .digests import bytes_sha256, file_sha256, pixels_of
from .files import read_file, write_file
from .keys import load_signer
from .pictures import encode
from .privacy import Prompts, require_mode
from .reading import misfit
from .statement import Generation, encoded, statement

Evidence = Iterable[tuple[str, str | Path]]


def write_sidecar(
    image_path: str | Path,
    report: Any,
    generation: Generation,
    *,
    prompts: Prompts = "plain",
    evidence: Evidence = (),
    findings: Iterable[Any] = (),
    calibration: Any = None,
    c2pa: Any = None,
) -> Path:
    """Writes `<image file name>.cryptomnesia.json`, and `.c2pa` if asked to. Write it last, after all metadata.

    Args:
        image_path: A PNG, JPEG or WebP file.
        report: A MemorizationReport, the dict that its to_dict gave, or None if nothing was checked.
        generation: How the image was made.
        prompts: "plain", "hash" (SHA-256 of the texts; short ones can be guessed) or "none".
        evidence: (kind, path) of files in the image's folder that belong to it, e.g. ("heatmap", "a.map.png").
        findings: Further findings about the image: an Attribution, Signatures, or the dicts that their to_dict gave.
        calibration: The calibration of the check, for the score threshold in the sidecar.
        c2pa: A Signer; or True for the one that `load_signer()` finds.

    Returns:
        The path of the JSON sidecar, an older one of which is replaced.

    Raises:
        InputError: The image cannot be decoded, or an argument cannot be used.
        SidecarError: Something cannot be read, written or signed. Where signing fails, e.g. for want of c2pa-python,
            the JSON sidecar is there, and the message says so.
        MissingPackage: Pillow is not installed.
    """
    image = Path(image_path)
    data = read_file(image, MOST_BYTES, "image")
    evidence = [(kind, Path(path)) for kind, path in evidence]
    _require_checkable(path for _, path in evidence)
    document = statement(
        image.name,
        bytes_sha256(data),
        pixels_of(data),
        report,
        generation,
        prompts=prompts,
        evidence=[_evidence(image, kind, path) for kind, path in evidence],
        findings=findings,
        calibration=calibration,
    )
    _require_readable(document)
    path = sidecar_path(image)
    write_file(path, encoded(document), "sidecar")
    if c2pa:
        _sign(document, image, data, c2pa)
    return path


def _require_readable(document: dict[str, Any]) -> None:
    try:
        where = misfit(document)
    except MissingPackage:  # needed to read, not to write
        return
    if where is not None:
        raise InputError(f"the report or the generation does not fit a sidecar at {where}: see sidecar/schema.json")


def _require_checkable(paths: Iterable[Path]) -> None:
    """Raises InputError for more evidence than `verify` reads."""
    files, size = set(paths), 0
    with suppress(OSError, ValueError):  # which taking the digest tells better
        size = sum(path.stat().st_size for path in files)
    if size > neighbours.MOST_BYTES or len(files) > neighbours.MOST_FILES:
        raise InputError(
            f"evidence is at most {neighbours.MOST_FILES} files of {size_text(neighbours.MOST_BYTES)} together, since "
            "no more is checked: name fewer"
        )


def _evidence(image: Path, kind: str, path: Path) -> dict[str, str]:
    if os.path.realpath(path.parent) != os.path.realpath(image.parent):
        raise InputError(f"the evidence {path} lies in another folder than the image: save it beside the image")
    return {"kind": kind, "name": path.name, "sha256": file_sha256(path)}


def _sign(document: dict[str, Any], image: Path, data: bytes, c2pa: Any) -> None:
    try:
        signer = load_signer() if c2pa is True else c2pa
        if signer is None:
            raise SidecarError("there is no key: make one with `cryptomnesia keys new`, and name it as it says")
        manifest = sign(document, data, media_type(data) or "", signer)
        write_file(c2pa_path(image), manifest, "signature")
    except CryptomnesiaError as error:
        raise SidecarError(f"the JSON sidecar of {image.name} was written, its signature was not: {error}") from error


def save(
    image: Any,
    path: str | Path,
    report: Any,
    generation: Generation,
    *,
    prompts: Prompts = "plain",
    evidence: Evidence = (),
    findings: Iterable[Any] = (),
    calibration: Any = None,
    c2pa: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Saves an image and its sidecar, both atomically; the other arguments are those of `write_sidecar`.

    Args:
        image: A Pillow image, or an array or tensor (H, W, 3), uint8 or float in [0, 1].
        path: Ends in .png, .jpg, .jpeg or .webp; a file of that name is replaced, its sidecars with it.
        options: Options of Pillow's encoder, e.g. {"pnginfo": ...}.

    Returns:
        The path of the JSON sidecar.

    Raises:
        InputError: The image, its extension or `prompts` cannot be used; nothing was changed.
        SidecarError: Something else went wrong. If the image cannot be written, nothing was changed; if the sidecar
            cannot, whatever the reason, the image is there, and the message says so.
        MissingPackage: Pillow is not installed.
    """
    require_mode(prompts)
    path = Path(path)
    write_file(path, encode(image, path, options or {}), "image")
    for stale in (sidecar_path(path), c2pa_path(path)):  # they tell of the image that was replaced
        remove(stale)
    try:
        return write_sidecar(
            path,
            report,
            generation,
            prompts=prompts,
            evidence=evidence,
            findings=findings,
            calibration=calibration,
            c2pa=c2pa,
        )
    except CryptomnesiaError as error:
        raise SidecarError(f"the image {path} was saved, its provenance was not all written: {error}") from error
