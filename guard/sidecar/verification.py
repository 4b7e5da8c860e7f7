"""Is an image still the one that its sidecar tells of?"""

import datetime
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, MissingPackage, SidecarError
from . import wording
from .c2pa import MOST, Signature, read
from .digests import MOST_IMAGE_BYTES, bytes_sha256, media_type, pixels_of
from .files import C2PA, SIDECAR, c2pa_path, read_file, read_if_there, sidecar_path
from .reading import created, parse
from .statement import LIMIT, digest

SKEW = datetime.timedelta(minutes=5)  # clocks differ
UNCHECKED = "not checked (c2pa missing)"


@dataclass(frozen=True)
class Verification:
    """What was found, each question apart.

    Attributes:
        image: The file that was looked at.
        sidecar: Its JSON sidecar: "malformed" is also one that no program of this version wrote.
        file: Whether its bytes are those that the sidecar tells of; "unknown" without a sidecar.
        pixels: Whether its decoded pixels are; they outlive stripped metadata.
        signature: Of the .c2pa file, if there is one. "valid, signer unknown" is not invalid: nobody vouches for who
            signed.
        agreement: Whether the sidecar says what was signed; None where that cannot be told.
        clock: "ahead" if the sidecar was made over 5 minutes in the future: a warning.
        evidence: Files that the sidecar lists: name and "same", "changed", "missing" or "unreadable".
        claims: What the sidecar says: created, host, verdict, p_value, alpha, models, prompt_mode, seed, findings; or
            None.
        lines: All of it in plain words.
    """

    image: str
    sidecar: Literal["found", "missing", "malformed"]
    file: Literal["intact", "changed", "unknown"]
    pixels: Literal["same", "changed", "unreadable", "unknown"]
    signature: Literal["none", "trusted", "valid, signer unknown", "invalid", "not checked (c2pa missing)"]
    agreement: Literal["same", "differs"] | None
    clock: Literal["fine", "ahead", "unknown"]
    evidence: list[tuple[str, str]]
    claims: dict[str, Any] | None
    lines: list[str]

    @property
    def intact(self) -> bool:
        """Sidecar found, file and pixels as it says, and no signature that says otherwise.

        Unless the signature is "trusted", this only says that image and sidecar fit each other.
        """
        fits = self.sidecar == "found" and self.file == "intact" and self.pixels == "same"
        return fits and self.signature != "invalid" and self.agreement != "differs"

    @property
    def vouched(self) -> bool:
        """Intact, and all of it signed by someone who is trusted."""
        return self.intact and self.signature == "trusted" and self.agreement == "same"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"intact": self.intact, "vouched": self.vouched}


def verify(
    image_path: str | Path, sidecar: str | Path | None = None, *, trust: Iterable[str | Path] = ()
) -> Verification:
    """Compares an image with its sidecar, and checks the signature where there is one. Nothing is fetched.

    Args:
        image_path: The image.
        sidecar: Its JSON sidecar, by default `<image file name>.cryptomnesia.json`. The .c2pa file is looked for
            beside either.
        trust: PEM files with certificates of signers or their authorities that you trust, e.g. a signer's root.pem.

    Raises:
        InputError: The image cannot be read.
        SidecarError: A certificate to trust cannot be read. A sidecar that cannot is "malformed".
        MissingPackage: jsonschema or Pillow is not installed.
    """
    image = Path(image_path)
    anchors = [read_file(Path(path), LIMIT, "certificate") for path in trust]
    try:
        data = read_file(image, MOST_IMAGE_BYTES, "image")
    except SidecarError as error:
        raise InputError(str(error)) from error
    place = sidecar_path(image) if sidecar is None else Path(sidecar)
    state, document, problem = _statement(place)
    signature, signed = _signature(image, place, data, anchors)
    found: dict[str, Any] = {"file": "unknown", "pixels": "unknown", "clock": "unknown", "evidence": [], "claims": None}
    if document is not None:
        found = _compared(image, data, document)
    found["agreement"] = _agreement(document, signed)
    result = Verification(image=str(image), sidecar=state, signature=signature, lines=[], **found)
    result.lines.extend(wording.lines(result, document, signed, problem))
    return result


def _statement(place: Path) -> tuple[Any, dict[str, Any] | None, str | None]:
    """State, document and what is wrong with it."""
    try:
        data = read_if_there(place, LIMIT, "sidecar")
        return ("missing", None, None) if data is None else ("found", parse(data), None)
    except SidecarError as error:
        return "malformed", None, str(error)


def _signature(image: Path, place: Path, data: bytes, anchors: list[bytes]) -> tuple[Any, Signature | None]:
    beside = place.with_name(place.name.removesuffix(SIDECAR) + C2PA)
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
        "file": "intact" if bytes_sha256(data) == document["subject"][0]["digest"]["sha256"] else "changed",
        "pixels": _pixels(data, predicate["pixels"]),
        "clock": "ahead" if created(document) > now + SKEW else "fine",
        "evidence": [(entry["name"], _evidence(image, entry)) for entry in predicate["evidence"]],
        "claims": _claims(predicate),
    }


def _pixels(data: bytes, claimed: dict[str, Any]) -> str:
    try:
        return "same" if asdict(pixels_of(data)) == claimed else "changed"
    except InputError:
        return "unreadable"


def _evidence(image: Path, entry: dict[str, str]) -> str:
    try:
        data = read_if_there(image.parent / entry["name"], MOST_IMAGE_BYTES, "evidence")
    except SidecarError:
        return "unreadable"
    if data is None:
        return "missing"
    return "same" if bytes_sha256(data) == entry["sha256"] else "changed"


def _claims(predicate: dict[str, Any]) -> dict[str, Any]:
    check = predicate["check"] or {}
    return {
        "created": predicate["created"],
        "host": predicate["generator"]["host"],
        "verdict": check.get("verdict"),
        "p_value": check.get("p_value"),
        "alpha": check.get("alpha"),
        "models": [model["name"] for model in predicate["models"]],
        "prompt_mode": predicate["prompt"]["mode"],
        "seed": predicate["seed"],
        "findings": predicate.get("findings", []),
    }
