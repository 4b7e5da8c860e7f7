"""Is an image still the one that its provenance describes, and who vouches for that?"""

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..containers import holds_more, media_type
from ..errors import InputError, MissingPackage, SidecarError
from ..image_codes import codes_to_find
from ..images import C2PA, SIDECAR, c2pa_path, decode_image, read_image, sidecar_path
from ..printable import printable
from . import dsse, manifest, wording, xmp
from .c2pa import MOST, Signature, read
from .certificates import in_force, revoked_serials
from .digests import bytes_sha256, pixels_of
from .files import read_file, read_if_there
from .neighbours import compared
from .packets import read_packet
from .reading import created, misfit, opened
from .result import UNCHECKED, Verification
from .statement import LIMIT, STATEMENT_TYPE, digest
from .store import Match, Store

SKEW = datetime.timedelta(minutes=5)  # clocks differ
_MOST_REVOKED = 64 << 20  # bytes of a revocation list
_BOX = b"jumb"  # in every file with a manifest
_FIELDS = ("provider", "system", "system_version", "content_id", "source_type", "training")
# names of these in XMP
_IN_XMP = {
    "provider": "cryptomnesia:Provider",
    "system": "Iptc4xmpExt:AISystemUsed",
    "system_version": "Iptc4xmpExt:AISystemVersionUsed",
    "content_id": "Iptc4xmpExt:DigImageGUID",
    "source_type": "Iptc4xmpExt:DigitalSourceType",
    "training": "plus:DataMining",
    "created": "xmp:CreateDate",
}

# any of these says that a program made the image
_OF_GENERATORS = ("Iptc4xmpExt:DigitalSourceType", "Iptc4xmpExt:AISystemUsed", "cryptomnesia:Pixels")


class Checker:
    """What many images are verified with: certificates, revocations and a store, read once. A context manager."""

    def __init__(
        self,
        *,
        trust: Iterable[str | Path] = (),
        revoked: Iterable[str | Path] = (),
        store: str | Path | None = None,
    ):
        """Reads them; the arguments, and what is raised, are those of `verify`."""
        self.anchors = [in_force(read_file(Path(path), LIMIT, "certificate"), printable(path)) for path in trust]
        self.revoked: Collection[int] = frozenset[int]().union(
            *(
                revoked_serials(read_file(Path(path), _MOST_REVOKED, "list of revoked certificates"), printable(path))
                for path in revoked
            )
        )
        self.store = None if store is None else Store.open(store)
        self.beside: dict[Path, list[tuple[Path, bytes, bytes]]] = {}  # sidecars by folder, for `owner`

    def __enter__(self) -> "Checker":
        return self

    def __exit__(self, *error: object) -> None:
        if self.store is not None:
            self.store.close()

    def verify(self, image_path: str | Path, sidecar: str | Path | None = None) -> Verification:
        """Verifies one image; see `verify`."""
        image = Path(image_path)
        data = read_image(image)
        json_path = sidecar_path(image) if sidecar is None else Path(sidecar)
        state, document, envelope, problem = _statement(json_path)
        signature, signed = self._signature(image, json_path, data)
        envelope_state, sealed = self._envelope(envelope)
        states: dict[str, Any] = dict.fromkeys(("file", "pixels", "clock"), "unknown") | {
            "evidence": [],
            "claims": None,
        }
        states["embedded"] = "manifest" if signature == UNCHECKED or (signed and signed.embedded) else "none"
        told = document if document is not None else _embedded(image, data, signed)
        unread = None
        if told is not None:
            states["pixels"], unread = _pixels(data, told["predicate"]["pixels"])
            states |= _compared(image, data, told)
            states["fields"] = {name: (told["predicate"].get("marking") or {}).get(name) for name in _FIELDS}
        said: Mapping[str, str] = {}
        if told is None and state == "missing" and signature == "none":
            said, problem = _xmp(data)
            states |= _xmp_states(data, said)
        states["agreement"] = _agreement(document, signed)
        matches = self._found(data)
        result = Verification(
            image=str(image),
            sidecar=state,
            signature=signature,
            lines=[],
            envelope=envelope_state,
            signer=signed.signer if signed else sealed.signer if sealed else None,
            stamped=signed.stamped if signed else None,
            found=[match.to_dict() for match in matches],
            **states,
        )
        more = states["pixels"] == "same" and holds_more(data)
        aside = wording.Aside(problem, signed, unread, more, sealed, said, matches, document is None)
        result.lines.extend(wording.lines(result, told, aside))
        return result

    def _signature(self, image: Path, json_path: Path, data: bytes) -> tuple[Any, Signature | None]:
        beside = json_path.with_name(json_path.name.removesuffix(SIDECAR) + C2PA)
        try:
            signed = read(None, data, media_type(data), self.anchors, self.revoked) if _BOX in data else None
            if signed is not None:
                return signed.state, signed
            apart = read_if_there(c2pa_path(image), MOST, "signature")
            if apart is None:
                apart = read_if_there(beside, MOST, "signature")
            if apart is None:
                return "none", None
            signed = read(apart, data, media_type(data), self.anchors, self.revoked)
        except SidecarError as error:
            return "invalid", Signature("invalid", None, str(error), None)
        except MissingPackage:
            return UNCHECKED, None
        return ("none", None) if signed is None else (signed.state, signed)

    def _envelope(self, envelope: Mapping[str, Any] | None) -> tuple[Any, dsse.Sealed | None]:
        if envelope is None:
            return "none", None
        try:
            sealed = dsse.judged(envelope, self.anchors, self.revoked)
        except MissingPackage:
            return "not checked", None
        return sealed.state, sealed

    def _found(self, data: bytes) -> list[Match]:
        """Records of the store, if one was given, that an image may be a copy of."""
        if self.store is None:
            return []
        try:
            picture = decode_image(data)
            pixels = pixels_of(data).sha256 if media_type(data) else None
        except InputError:
            return []
        return self.store.find(codes_to_find(picture), pixels)


def verify(
    image_path: str | Path,
    sidecar: str | Path | None = None,
    *,
    trust: Iterable[str | Path] = (),
    revoked: Iterable[str | Path] = (),
    store: str | Path | None = None,
) -> Verification:
    """Compares an image with its provenance: in its own file, and beside it. Nothing is fetched.

    Args:
        image_path: The image.
        sidecar: Its JSON sidecar, by default `<image file name>.cryptomnesia.json`. The .c2pa file is looked for
            beside either.
        trust: PEM files with certificates of signers or their authorities that you trust, e.g. a signer's root.pem or
            the trust list of C2PA.
        revoked: Files with revoked certificates: CRLs, or texts with a serial number a line.
        store: A folder with a store that `save` wrote to: the image is looked for in it by what it looks like.

    Returns:
        The answer to each question, and all of it in plain words.

    Raises:
        InputError: The image cannot be read, or there is no store.
        SidecarError: A certificate to trust, a list of revoked ones or the store cannot be read, or is out of date. A
            sidecar that cannot is "malformed".
        MissingPackage: jsonschema or Pillow is not installed; or iscc-lib, where a store is given.
    """
    with Checker(trust=trust, revoked=revoked, store=store) as checker:
        return checker.verify(image_path, sidecar)


def _statement(path: Path) -> tuple[Any, dict[str, Any] | None, Mapping[str, Any] | None, str | None]:
    """The sidecar's state, its document, the envelope around it, and what is wrong with it."""
    try:
        data = read_if_there(path, LIMIT, "sidecar")
        if data is None:
            return "missing", None, None, None
        document, envelope = opened(data)
    except SidecarError as error:
        return "malformed", None, None, str(error)
    return "found", document, envelope, None


def _embedded(image: Path, data: bytes, signed: Signature | None) -> dict[str, Any] | None:
    """The statement in a manifest that lies in the image's file; its subject is the file, if the signature fits it."""
    if signed is None or signed.predicate is None:
        return None
    good = signed.state != "invalid"
    subject = {
        "name": image.name.encode("utf-8", "replace").decode(),
        "digest": {"sha256": bytes_sha256(data) if good else "0" * 64},
    }
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": signed.predicate.get("predicateType"),
        "predicate": signed.predicate["predicate"],
    }
    try:
        if misfit(document) is not None:
            return None
        created(document)
    except SidecarError:
        return None
    return document


def _agreement(document: dict[str, Any] | None, signed: Signature | None) -> str | None:
    if document is None or signed is None:
        return None
    if signed.embedded:
        if signed.predicate is None:  # another program's manifest, or one that cannot be read, says nothing of it
            return None
        return "same" if signed.predicate["sha256"] == manifest.digest(document["predicate"]) else "differs"
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


def _xmp(data: bytes) -> tuple[Mapping[str, str], str | None]:
    """What the metadata say of how the image was made, if anything; and why they cannot be read."""
    try:
        packet = read_packet(data)
        said = {} if packet is None else xmp.read(packet)
    except SidecarError as error:
        return {}, str(error)
    return (said if any(said.get(name) for name in _OF_GENERATORS) else {}), None


def _xmp_states(data: bytes, said: Mapping[str, str]) -> dict[str, Any]:
    if not said:
        return {}
    states: dict[str, Any] = {"embedded": "xmp", "fields": {key: said.get(name) for key, name in _IN_XMP.items()}}
    digest = said.get("cryptomnesia:Pixels")
    if digest is not None:
        try:
            states["pixels"] = "same" if pixels_of(data).sha256 == digest else "changed"
        except InputError:
            states["pixels"] = "unreadable"
    return states


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
