"""What a C2PA signature is worth: one in the image's own file, or in a file beside it. Nothing is fetched.

Reference: C2PA Technical Specification 2.4.
"""

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import require
from . import manifest as embedded

LABEL = "org.cryptomnesia.provenance"
MOST = 32 << 20  # bytes of a manifest
_OTHER_FILE = {"assertion.dataHash.mismatch", "assertion.bmffHash.mismatch", "assertion.boxesHash.mismatch"}
_UNKNOWN_SIGNER = "signingCredential.untrusted"
_REFUSED = {
    "signingCredential.expired": "the signer's certificate has expired",
    "signingCredential.invalid": "the signer's certificate is none to sign images with",
    "signingCredential.revoked": "the signer's certificate was revoked",
    "signingCredential.ocsp.revoked": "the signer's certificate was revoked",
}
_OUT_OF_TIME = "claimSignature.outsideValidity"  # the same fault, told of the signature
State = Literal["trusted", "valid, signer unknown", "refused", "invalid"]


@dataclass(frozen=True)
class Signature:
    """What a manifest is worth for some image bytes.

    Attributes:
        state: "trusted", "valid, signer unknown", "refused" (good, but by a certificate that has expired, was revoked,
            or is for other uses), or "invalid".
        signer: The name in the certificate, or None; anyone can put any name there unless the state is "trusted".
        reason: Why it is refused or invalid, or None.
        statement: Digest, in hex, of the statement that was signed; None where the manifest is broken, holds none, or
            is embedded.
        embedded: Whether the manifest lies in the image's file.
        predicate: Our assertion of an embedded manifest (predicateType, sha256, predicate), or None.
        serial: The certificate's serial number, or None.
        stamped: When a time authority has seen the signature, as it says; None without one.
        stamp_trusted: Whether that authority is one of those that are trusted.
        generator: Name and version of what wrote the manifest.
        source_types: Digital source types of its actions, e.g. trainedAlgorithmicMedia, without the address before it.
        parents: Names of the files that the image was made from, as the manifest says.
        labels: Labels of its assertions.
    """

    state: State
    signer: str | None
    reason: str | None
    statement: str | None
    embedded: bool = False
    predicate: Mapping[str, Any] | None = None
    serial: int | None = None
    stamped: str | None = None
    stamp_trusted: bool = False
    generator: str | None = None
    source_types: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default=(), repr=False)


def read(
    manifest: bytes | None,
    image: bytes,
    media_type: str | None,
    trust: Sequence[bytes] = (),
    revoked: Collection[int] = (),
) -> Signature | None:
    """Checks a manifest against the bytes of an image.

    Args:
        manifest: The bytes of the .c2pa file; None for the manifest in the image's own file.
        image: All bytes of the image.
        media_type: The image's media type; None if it is no image any more.
        trust: PEM certificates that `certificates.in_force` gave, e.g. the root of who signs; without any the best
            state is "valid, signer unknown".
        revoked: Serial numbers of certificates that are not to be trusted any more.

    Returns:
        What the manifest is worth for these bytes; None where there is none in the image's file.

    Raises:
        MissingPackage: c2pa-python is not installed.
    """
    library = require("c2pa", "c2pa")
    if manifest is None and media_type is None:
        return None
    options: dict[str, Any] = {"verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False}}
    anchors = [pem.decode() for pem in trust]
    if anchors:
        options["trust"] = {"user_anchors": "\n".join(anchors)}
    damaged = Signature("invalid", None, "it is damaged or was altered", None, embedded=manifest is None)
    try:
        with (
            library.Settings.from_dict(options) as settings,
            library.Context(settings) as context,
            library.Reader(media_type or "image/png", io.BytesIO(image), manifest, context) as reader,
        ):
            state, document = reader.get_validation_state(), json.loads(reader.json())
            active = document["manifests"][document["active_manifest"]]
            failures, successes = _codes(document, "failure"), _codes(document, "success")
    except library.C2paError as error:
        # the one way that it tells a file without a manifest
        return None if manifest is None and "ManifestNotFound" in str(error) else damaged
    except (ValueError, LookupError, TypeError, RecursionError):
        return damaged
    try:
        about = _about(active, manifest is None) | {"stamp_trusted": "timeStamp.trusted" in successes}
        return _judged(state, active, failures, bool(anchors), about, revoked)
    except (ValueError, LookupError, TypeError, AttributeError):
        return damaged


def _codes(document: dict[str, Any], kind: str) -> set[str]:
    results = document["validation_results"]["activeManifest"]
    listed = [*results.get(kind, []), *(document.get("validation_status", []) if kind == "failure" else [])]
    return {status["code"] for status in listed}


def _judged(
    state: str | None,
    active: Any,
    failures: set[str],
    anchored: bool,
    about: dict[str, Any],
    revoked: Collection[int],
) -> Signature:
    signed = None if about["embedded"] else _signed(active)
    refused = failures & set(_REFUSED)
    if refused and failures <= refused | {_UNKNOWN_SIGNER, _OUT_OF_TIME}:
        return Signature("refused", reason=_REFUSED[sorted(refused)[0]], statement=signed, **about)
    good = (state == "Trusted" and anchored and not failures) or (state == "Valid" and failures == {_UNKNOWN_SIGNER})
    if good and about["serial"] in revoked:
        return Signature("refused", reason="the signer's certificate was revoked", statement=signed, **about)
    if good:
        return Signature(
            "trusted" if state == "Trusted" else "valid, signer unknown", reason=None, statement=signed, **about
        )
    if failures & _OTHER_FILE and failures <= _OTHER_FILE | {_UNKNOWN_SIGNER}:
        return Signature(
            "invalid", reason="it was made for other bytes than those of this file", statement=signed, **about
        )
    about |= {"predicate": None}
    return Signature("invalid", reason="it is damaged or was altered", statement=None, **about)


def _about(active: Any, inside: bool) -> dict[str, Any]:
    """What the manifest says that is shown as it stands; of foreign ones any part may be missing."""
    info = active.get("signature_info") or {}
    serial = str(info.get("cert_serial_number", ""))
    actions = [
        action
        for one in _assertions(active)
        if str(one["label"]).startswith("c2pa.actions")
        for action in (one.get("data") or {}).get("actions") or []
        if isinstance(action, dict)
    ]
    types = [
        str(action["digitalSourceType"]).rpartition("/")[2] for action in actions if action.get("digitalSourceType")
    ]
    generators = active.get("claim_generator_info") or [{}]
    generator = " ".join(str(generators[0][key]) for key in ("name", "version") if generators[0].get(key))
    parents = [
        str(one.get("title")) for one in active.get("ingredients") or [] if one.get("relationship") == "parentOf"
    ]
    return {
        "signer": info.get("common_name") or info.get("issuer"),
        "embedded": inside,
        "predicate": _predicate(active) if inside else None,
        "serial": int(serial) if serial.isdecimal() and len(serial) < 60 else None,
        "stamped": info.get("time"),
        "generator": generator or active.get("claim_generator") or None,
        "source_types": tuple(dict.fromkeys(types)),
        "parents": tuple(parents),
        "labels": tuple(str(one["label"]) for one in _assertions(active)),
    }


def _assertions(active: Any) -> list[dict[str, Any]]:
    found = active.get("assertions") or []
    return [one for one in found if isinstance(one, dict) and one.get("label")]


def _predicate(active: Any) -> Mapping[str, Any] | None:
    """Our assertion in an embedded manifest, if there is exactly one: predicateType, sha256 and predicate.

    The digest is that of the JSON as it was written; numbers of the copy may have lost their last digit on the way.
    """
    data = [one.get("data") for one in _assertions(active) if str(one["label"]).startswith(embedded.LABEL)]
    if len(data) != 1 or not isinstance(data[0], dict) or not isinstance(data[0].get("predicate"), dict):
        return None
    return data[0] if isinstance(data[0].get("sha256"), str) else None


def _signed(active: Any) -> str | None:
    """The digest in our assertion, if there is exactly one."""
    data = [one.get("data") for one in _assertions(active) if str(one["label"]).startswith(LABEL)]
    if len(data) != 1 or not isinstance(data[0], dict):
        return None
    value = data[0].get("json_sha256")
    return value if isinstance(value, str) else None
