"""Writes a sidecar beside an image, marks the image's own file, or both."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..containers import media_type
from ..errors import CryptomnesiaError, InputError, MissingPackage, SidecarError, UnsignedWarning
from ..files import remove, size_text
from ..image_codes import codes_to_find, image_code
from ..images import MOST_BYTES, c2pa_path, decode_image, sidecar_path
from . import dsse, neighbours
from .c2pa import read
from .digests import bytes_sha256, file_sha256, pixels_of
from .files import read_file, write_file
from .keys import STORE, Signer, load_signer, setting
from .manifest import Parent
from .marking import Marking, mark, marking_of, parameters_text, properties
from .packets import read_packet, with_packet, with_text
from .pictures import encode
from .privacy import Prompts, require_mode
from .reading import misfit
from .signing import embed as embed_manifest
from .signing import sign
from .statement import Generation, encoded, statement
from .store import Store
from .xmp import packet

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
    embed: Marking | bool | None = None,
    store: str | Path | bool | None = None,
) -> Path:
    """Writes `<image file name>.cryptomnesia.json`, and what else is asked for. Write it last, after all metadata.

    Args:
        image_path: A PNG, JPEG, WebP or AVIF file.
        report: A MemorizationReport, the dict that its to_dict gave, or None if nothing was checked.
        generation: How the image was made.
        prompts: "plain", "hash" (SHA-256 of the texts; short ones can be guessed) or "none".
        evidence: (kind, path) of files in the image's folder that belong to it, e.g. ("heatmap", "a.map.png").
        findings: Further findings about the image: an Attribution, Signatures, or the dicts that their to_dict gave.
        calibration: The calibration of the check, for the score threshold in the sidecar.
        c2pa: A Signer; or True for the one that `load_signer()` finds. The JSON sidecar is signed with it, too.
        embed: True, or a Marking, to put the provenance into the image's own file as well: XMP, and, with a key, a
            signed C2PA manifest. Then `c2pa` is the signer, by default the one that `load_signer()` finds; without a
            key there are XMP and the JSON sidecar only, which an UnsignedWarning says. Without `embed` the file stays
            as it is, and a signature goes into `<image file name>.c2pa`.
        store: A folder whose store remembers the image, so that `verify` finds it again; made if need be. By default
            CRYPTOMNESIA_STORE of the environment or of settings.json, if that is set; False for none.

    Returns:
        The path of the JSON sidecar, an older one of which is replaced.

    Raises:
        InputError: The image cannot be decoded, or an argument cannot be used.
        SidecarError: Something cannot be read, written or signed. Where signing fails, e.g. for want of c2pa-python,
            the JSON sidecar is there, and the message says so; likewise where no time-stamp or no store can be had.
        MissingPackage: Pillow is not installed; or iscc-lib, where the image is marked or stored.
    """
    marking = marking_of(embed)
    image, problems, folder = Path(image_path), [], None
    with _told(problems, f"{image.name} was not put into the store"):
        folder = setting(STORE) if store is None or store is True else store or None
    data = read_file(image, MOST_BYTES, "image")
    evidence = [(kind, Path(path)) for kind, path in evidence]
    _require_checkable(path for _, path in evidence)
    pixels = pixels_of(data)
    parent = None if marking is None else _parent(marking, image, data)
    picture = decode_image(data) if marking is not None or folder is not None else None
    code = None if marking is None else image_code(picture)
    marked = None if marking is None else mark(marking, generation, picture, code=code)
    document = statement(
        image.name,
        bytes_sha256(data),
        pixels,
        report,
        generation,
        prompts=prompts,
        evidence=[_evidence(image, kind, path) for kind, path in evidence],
        findings=findings,
        calibration=calibration,
        marking=marked if marked is None or parent is None else marked | {"parent": parent.name},
    )
    _require_readable(document)
    signer = _signer(c2pa, marking, image.name, problems)
    if marking is not None:
        data = _marked(image, data, document, marking, signer, parent, problems)
    path = sidecar_path(image)
    text = encoded(document)
    if signer is not None:
        with _told(problems, f"the JSON sidecar of {image.name} was written, its signature was not"):
            text = dsse.sealed(text, signer)
    write_file(path, text, "sidecar")
    if signer is not None and marking is None:
        with _told(problems, f"the JSON sidecar of {image.name} was written, its signature was not"):
            manifest = sign(document, data, media_type(data) or "", signer)
            write_file(c2pa_path(image), manifest, "signature")
    if folder is not None:
        with _told(problems, f"{image.name} was not put into the store"), Store.open(folder, make=True) as kept:
            kept.add(document, codes_to_find(picture))
    if problems:
        raise SidecarError("; ".join(problems))
    if marking is not None and signer is None:  # last, for those who turn warnings into errors
        warnings.warn(
            f"{image.name} was marked without a signature, in XMP and a JSON file only, which anyone can change: make "
            "a key with `cryptomnesia keys new`, and name it as it says",
            UnsignedWarning,
            stacklevel=3,
        )
    return path


@contextmanager
def _told(problems: list[str], what: str, only: type[CryptomnesiaError] = CryptomnesiaError) -> Iterator[None]:
    """Keeps what goes wrong in a block for the end, so that the rest is done all the same."""
    try:
        yield
    except only as error:
        problems.append(f"{what}: {error}")


def _signer(c2pa: Any, marking: Marking | None, name: str, problems: list[str]) -> Signer | None:
    """Who signs, if anybody; why nobody does who should is added to the problems."""
    if not c2pa and (marking is None or c2pa is False):
        return None
    signer = None
    with _told(problems, f"the JSON sidecar of {name} was written, its signature was not"):
        signer = load_signer() if c2pa is True or c2pa is None else c2pa
        if signer is None and c2pa:
            raise SidecarError("there is no key: make one with `cryptomnesia keys new`, and name it as it says")
    return signer


def _parent(marking: Marking, image: Path, data: bytes) -> Parent | None:
    """The file that an image was made from; the image itself, where it has a manifest already."""
    if marking.parent is not None:
        path = Path(marking.parent)
        original = read_file(path, MOST_BYTES, "parent image")
        kind = media_type(original)
        if kind is None:
            raise InputError(f"the parent {path.name} is no PNG, JPEG or WebP image: leave it out, or save it as PNG")
        return Parent(path.name, original, kind)
    try:
        found = read(None, data, media_type(data))
    except MissingPackage:  # then nothing is signed either
        return None
    return None if found is None else Parent(image.name, data, media_type(data) or "")


def _marked(
    image: Path,
    data: bytes,
    document: dict[str, Any],
    marking: Marking,
    signer: Signer | None,
    parent: Parent | None,
    problems: list[str],
) -> bytes:
    """Writes the image's file anew with its provenance in it, and returns its bytes; the statement tells its digest.

    Whatever fails, the file is there, with as much of it as could be written.
    """
    predicate = document["predicate"]
    size = (predicate["pixels"]["width"], predicate["pixels"]["height"])
    result = data
    itself = parent is not None and parent.data is data
    if signer is None and itself:
        problems.append(f"{image.name} has a manifest, which stays as it is: without a key nothing can be added to it")
        return data
    with _told(problems, f"{image.name} was not marked"):
        if media_type(data) == "image/avif":
            if signer is None:
                raise SidecarError("an AVIF takes a signed manifest only: make a key, or save it as PNG")
        else:
            if marking.parameters:
                text = parameters_text(predicate)
                result = result if text is None else with_text(result, "parameters", text, size)
            result = with_packet(result, packet(properties(predicate), read_packet(result)), size)
    if signer is not None:
        with _told(problems, f"{image.name} was marked without a signature"):
            kind = media_type(result) or ""
            result, unstamped = embed_manifest(
                document, result, kind, signer, parent=parent, time_authority=marking.time_authority
            )
            if unstamped is not None:
                problems.append(f"{image.name} was signed without a time-stamp: {unstamped}")
    if result is not data:
        with _told(problems, f"{image.name} was not marked"):
            write_file(image, result, "image")
            remove(c2pa_path(image))  # it tells of the file as it was
            document["subject"][0]["digest"]["sha256"] = bytes_sha256(result)
            return result
    return data


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
    embed: Marking | bool | None = None,
    store: str | Path | bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Saves an image and its sidecar, both atomically; the other arguments are those of `write_sidecar`.

    Args:
        image: A Pillow image, or an array or tensor (H, W, 3), uint8 or float in [0, 1].
        path: Ends in .png, .jpg, .jpeg, .webp or .avif; a file of that name is replaced, its sidecars with it.
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
    path, problems, marking = Path(path), [], None
    with _told(problems, "it was not marked", only=SidecarError):  # for settings that cannot be used
        marking = marking_of(embed)
    write_file(path, encode(image, path, options or {}), "image")
    for stale in (sidecar_path(path), c2pa_path(path)):  # they tell of the image that was replaced
        remove(stale)
    sidecar = sidecar_path(path)
    with _told(problems, "its provenance was not all written"):
        sidecar = write_sidecar(
            path,
            report,
            generation,
            prompts=prompts,
            evidence=evidence,
            findings=findings,
            calibration=calibration,
            c2pa=c2pa,
            embed=marking,
            store=store,
        )
    if problems:
        raise SidecarError(f"the image {path} was saved, {'; '.join(problems)}")
    return sidecar
