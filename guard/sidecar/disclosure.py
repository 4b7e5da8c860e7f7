"""Does an image carry what laws on AI-made content ask for? The fields, where each was found, and whether it is valid.

What a duty asks of a file is written down here as lists of fields; docs/disclosure.md names the sources. It is no legal
advice, and a duty may ask for more than a file can hold.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..containers import media_type
from ..errors import MissingPackage, SidecarError
from ..image_codes import ALGORITHM
from ..images import read_image
from . import xmp
from .c2pa import Signature, read
from .marking import SOURCE_TYPES
from .packets import read_packet
from .verification import Checker, Verification

_UUID = re.compile(r"(urn:uuid:|xmp\.iid:)?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TYPES = {one.rpartition("/")[2] for one in SOURCE_TYPES}
MANIFEST, METADATA, SIDECAR = "manifest", "XMP", "sidecar"


@dataclass(frozen=True)
class Field:
    """One thing that an image may carry.

    Attributes:
        name: What it is called, one of `FIELDS`.
        value: What it says, or None where it is not there.
        where: "manifest", "XMP", "sidecar", or None.
        valid: Whether it says what such a field should, and is in the file itself; False where it is not there.
        note: What is wrong with it, or None.
    """

    name: str
    value: str | None
    where: str | None
    valid: bool
    note: str | None


@dataclass(frozen=True)
class Duty:
    """What a law or a code asks for, as far as a file can carry it.

    Attributes:
        name: The law.
        fields: Names of the fields that it asks for.
        beyond: What it asks for that no file can carry, or that this library does not make.
    """

    name: str
    fields: tuple[str, ...]
    beyond: str


FIELDS = (
    "AI-made",
    "provider",
    "system",
    "system version",
    "time",
    "content id",
    "signed manifest",
    "trusted signer",
    "time-stamp",
    "image code",
    "training choice",
)
DUTIES = (
    Duty(
        "EU AI Act, Article 50(2)",
        ("AI-made",),
        "Marks have to be robust as far as that is technically feasible, and many sites strip metadata.",
    ),
    Duty(
        "EU code of practice on marking and labelling",
        ("AI-made", "signed manifest", "trusted signer", "time-stamp", "image code"),
        "It asks for a second layer, such as an invisible watermark, and for a detector: this library has neither.",
    ),
    Duty(
        "California SB 942, latent disclosure",
        ("provider", "system", "system version", "time", "content id"),
        "Large providers also owe a detection tool and the choice of a visible label.",
    ),
)


@dataclass(frozen=True)
class Disclosure:
    """What one image carries.

    Attributes:
        image: Name of the file.
        fields: All of `FIELDS`, in order.
        result: What `verify` says of it.
    """

    image: str
    fields: tuple[Field, ...]
    result: str

    def missing(self, duty: Duty) -> list[str]:
        """Returns the fields of a duty that are not there, or not valid."""
        valid = {field.name for field in self.fields if field.valid}
        return [name for name in duty.fields if name not in valid]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        fields = {
            field.name: {key: value for key, value in asdict(field).items() if key != "name"} for field in self.fields
        }
        return {
            "image": self.image,
            "result": self.result,
            "fields": fields,
            "missing": {duty.name: self.missing(duty) for duty in DUTIES},
        }


def disclosure_of(image: str | Path, checker: Checker) -> Disclosure:
    """Returns what an image carries, from the bytes of its file and its sidecar.

    Args:
        image: The image.
        checker: Whom is trusted, as for `verify`.

    Raises:
        InputError: The image cannot be read.
        MissingPackage: Pillow or jsonschema is not installed.
    """
    path = Path(image)
    verification = checker.verify(path)
    data = read_image(path)
    try:
        signed = read(None, data, media_type(data), checker.anchors, checker.revoked) if b"jumb" in data else None
    except MissingPackage:
        signed = None
    return Disclosure(str(path), tuple(_fields(verification, signed, _metadata(data))), verification.result)


def _metadata(data: bytes) -> Mapping[str, str]:
    try:
        packet = read_packet(data)
        return {} if packet is None else xmp.read(packet)
    except SidecarError:
        return {}


def _fields(found: Verification, signed: Signature | None, said: Mapping[str, str]) -> Iterable[Field]:
    inside = signed if signed is not None and signed.state != "invalid" else None
    marked: Mapping[str, Any] = {}
    created = None
    if inside is not None and inside.predicate is not None:
        predicate = inside.predicate["predicate"]
        marked, created = predicate.get("marking") or {}, predicate.get("created")
    beside = found.fields or {} if found.embedded == "none" else {}
    kinds = inside.source_types if inside is not None else ()

    def looked(name: str, in_manifest: Any, property: str, key: str, right: Callable[[str], bool]) -> Field:
        places = ((MANIFEST, in_manifest), (METADATA, said.get(property)), (SIDECAR, beside.get(key)))
        return _first(name, places, right)

    generator = inside.generator if inside is not None else None
    yield looked(
        "AI-made",
        next(iter(kinds), None),
        "Iptc4xmpExt:DigitalSourceType",
        "source_type",
        lambda value: value.rpartition("/")[2] in _TYPES,
    )
    yield looked("provider", marked.get("provider"), "cryptomnesia:Provider", "provider", _told)
    yield looked("system", marked.get("system") or generator, "Iptc4xmpExt:AISystemUsed", "system", _told)
    version = marked.get("system_version")
    yield looked("system version", version, "Iptc4xmpExt:AISystemVersionUsed", "system_version", _told)
    yield looked("time", created, "xmp:CreateDate", "created", _is_time)
    yield looked("content id", marked.get("content_id"), "Iptc4xmpExt:DigImageGUID", "content_id", _is_id)
    yield _manifest(signed)
    yield _signer(inside, found)
    yield _stamp(inside)
    yield _code(inside, said)
    yield looked("training choice", marked.get("training"), "plus:DataMining", "training", _told)


def _first(name: str, places: Sequence[tuple[str, Any]], right: Callable[[str], bool]) -> Field:
    """The first place that tells a field; a sidecar is none, since it does not travel with the image."""
    for where, value in places:
        if value:
            text = str(value)
            good = right(text)
            note = None if good else "it does not say what such a field should"
            if where == SIDECAR:
                note = "only beside the image: save it with embed=True"
            return Field(name, text, where, good and where != SIDECAR, note)
    return Field(name, None, None, False, None)


def _manifest(signed: Signature | None) -> Field:
    if signed is None:
        return Field("signed manifest", None, None, False, None)
    good = signed.state != "invalid"
    return Field("signed manifest", signed.generator or "yes", MANIFEST, good, None if good else signed.reason)


def _signer(inside: Signature | None, found: Verification) -> Field:
    if inside is None:
        return Field("trusted signer", None, None, False, None)
    trusted = inside.state == "trusted"
    note = None if trusted else inside.reason or "nobody you trust: keep its root with `cryptomnesia keys trust`"
    return Field("trusted signer", inside.signer, MANIFEST, trusted, note)


def _stamp(inside: Signature | None) -> Field:
    if inside is None or inside.stamped is None:
        return Field("time-stamp", None, None, False, None)
    note = None if inside.stamp_trusted else "by an authority you have not said you trust"
    return Field("time-stamp", inside.stamped, MANIFEST, True, note)


def _code(inside: Signature | None, said: Mapping[str, str]) -> Field:
    code = said.get("cryptomnesia:ImageCode")
    if inside is not None and any(label.startswith("c2pa.soft-binding") for label in inside.labels):
        return Field("image code", code or ALGORITHM, MANIFEST, True, None)
    return Field("image code", code, METADATA if code else None, code is not None, None)


def _told(value: str) -> bool:
    return bool(value.strip())


def _is_time(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _is_id(value: str) -> bool:
    return _UUID.fullmatch(value) is not None
