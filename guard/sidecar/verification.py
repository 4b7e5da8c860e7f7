"""Is an image still the one that its sidecar describes, and who vouches for that?"""

import datetime
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..containers import holds_more, media_type
from ..errors import InputError, MissingPackage, SidecarError
from ..images import C2PA, SIDECAR, c2pa_path, read_image, sidecar_path
from ..printable import printable
from . import wording
from .c2pa import MOST, Signature, read
from .certificates import in_force
from .digests import bytes_sha256, pixels_of
from .files import read_file, read_if_there
from .neighbours import compared
from .reading import created, parse
from .result import UNCHECKED, Verification
from .statement import LIMIT, digest

SKEW = datetime.timedelta(minutes=5)  # clocks differ


def verify(
    image_path: str | Path, sidecar: str | Path | None = None, *, trust: Iterable[str | Path] = ()
) -> Verification:
    """Compares an image with its sidecar, and checks the signature where there is one. Nothing is fetched.

    Args:
        image_path: The image.
        sidecar: Its JSON sidecar, by default `<image file name>.cryptomnesia.json`. The .c2pa file is looked for
            beside either.
        trust: PEM files with certificates of signers or their authorities that you trust, e.g. a signer's root.pem.

    Returns:
        The answer to each question, and all of it in plain words.

    Raises:
        InputError: The image cannot be read.
        SidecarError: A certificate to trust cannot be read, or has expired. A sidecar that cannot is "malformed".
        MissingPackage: jsonschema or Pillow is not installed.
    """
    image = Path(image_path)
    anchors = [in_force(read_file(Path(path), LIMIT, "certificate"), printable(path)) for path in trust]
    data = read_image(image)
    json_path = sidecar_path(image) if sidecar is None else Path(sidecar)
    state, document, problem = _statement(json_path)
    signature, signed = _signature(image, json_path, data, anchors)
    states: dict[str, Any] = dict.fromkeys(("file", "pixels", "clock"), "unknown") | {"evidence": [], "claims": None}
    aside = wording.Aside(problem, signed)
    if document is not None:
        states["pixels"], unread = _pixels(data, document["predicate"]["pixels"])
        states |= _compared(image, data, document)
        aside = wording.Aside(problem, signed, unread, states["pixels"] == "same" and holds_more(data))
    states["agreement"] = _agreement(document, signed)
    result = Verification(image=str(image), sidecar=state, signature=signature, lines=[], **states)
    result.lines.extend(wording.lines(result, document, aside))
    return result


def _statement(path: Path) -> tuple[Any, dict[str, Any] | None, str | None]:
    """The sidecar's state, its document, and what is wrong with it."""
    try:
        data = read_if_there(path, LIMIT, "sidecar")
        return ("missing", None, None) if data is None else ("found", parse(data), None)
    except SidecarError as error:
        return "malformed", None, str(error)


def _signature(image: Path, json_path: Path, data: bytes, anchors: list[bytes]) -> tuple[Any, Signature | None]:
    beside = json_path.with_name(json_path.name.removesuffix(SIDECAR) + C2PA)
    try:
        manifest = read_if_there(c2pa_path(image), MOST, "signature")
        if manifest is None:
            manifest = read_if_there(beside, MOST, "signature")
    except SidecarError as error:
        return "invalid", Signature("invalid", None, str(error), None)
    if manifest is None:
        return "none", None
    try:
        signed = read(manifest, data, media_type(data), anchors)
    except MissingPackage:
        return UNCHECKED, None
    return signed.state, signed


def _agreement(document: dict[str, Any] | None, signed: Signature | None) -> str | None:
    if document is None or signed is None:
        return None
    if signed.statement is not None:
        return "same" if signed.statement == digest(document) else "differs"
    # a good signature, but over no statement of ours, says nothing for the sidecar
    return None if signed.state == "invalid" else "differs"


def _compared(image: Path, data: bytes, document: dict[str, Any]) -> dict[str, Any]:
    predicate = document["predicate"]
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "file": "same" if bytes_sha256(data) == document["subject"][0]["digest"]["sha256"] else "changed",
        "clock": "ahead" if created(document) > now + SKEW else "fine",
        "evidence": compared(image.parent, predicate["evidence"]),
        "claims": _claims(predicate),
    }


def _pixels(data: bytes, claimed: dict[str, Any]) -> tuple[str, str | None]:
    """The state of the pixels, and why they cannot be read."""
    try:
        return "same" if asdict(pixels_of(data)) == claimed else "changed", None
    except InputError as error:
        return "unreadable", str(error)


def _claims(predicate: dict[str, Any]) -> dict[str, Any]:
    check, prompt = predicate["check"] or {}, predicate["prompt"]
    mitigation = check.get("mitigation") or {}
    mitigated_by = mitigation["method"] if mitigation.get("held") else None
    return {
        "created": predicate["created"],
        "host": predicate["generator"]["host"],
        "verdict": check.get("verdict"),
        "p_value": check.get("p_value"),
        "alpha": check.get("alpha"),
        "models": [model["name"] for model in predicate["models"]],
        "prompt_mode": prompt["mode"],
        "rewritten": prompt["rewritten"] is not None or mitigated_by == "rewrite",
        "seed": predicate["seed"],
        "findings": predicate.get("findings", []),
    }
