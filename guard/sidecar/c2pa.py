"""The signed sidecar: a C2PA manifest store in a file of its own, over the image's bytes and our statement.

The statement goes under our own label, as data that every C2PA reader can show, with the digest of its JSON, which
ties the JSON sidecar to the signature. Nothing is embedded in the image and nothing fetched from a network.
Reference: C2PA Technical Specification 2.2.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .. import __version__
from ..errors import SidecarError, require
from .keys import Signer
from .statement import digest

LABEL = "org.cryptomnesia.provenance"
MOST = 32 << 20  # bytes of a manifest
_CREATED = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
_OTHER_FILE = "assertion.dataHash.mismatch"
_UNKNOWN_SIGNER = "signingCredential.untrusted"
_EXPIRED = "signingCredential.expired"


@dataclass(frozen=True)
class Signature:
    """What a manifest is worth for some image bytes.

    Attributes:
        state: "trusted", "valid, signer unknown" or "invalid".
        signer: The name in the certificate, or None; anyone can put any name there unless the state is "trusted".
        reason: Why it is invalid, or None.
        statement: Digest, in hex, of the statement that was signed; None where the manifest is broken or holds none.
    """

    state: Literal["trusted", "valid, signer unknown", "invalid"]
    signer: str | None
    reason: str | None
    statement: str | None


def sign(statement: dict[str, Any], image: bytes, media_type: str, signer: Signer) -> bytes:
    """Signs an image and its statement. Sign last: any later change of the image makes the signature invalid.

    Args:
        statement: What the sidecar says.
        image: All bytes of the image.
        media_type: The image's media type, e.g. "image/png".
        signer: What signs.

    Returns:
        The bytes of the .c2pa file.

    Raises:
        SidecarError: The library refuses the image, the certificate or the key.
        MissingPackage: c2pa-python is not installed.
    """
    library = require("c2pa", "c2pa")
    manifest = {
        "claim_generator_info": [{"name": "cryptomnesia", "version": __version__}],
        "format": media_type,
        "title": statement["subject"][0]["name"],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [_CREATED]}},
            {"label": LABEL, "data": {"json_sha256": digest(statement), "statement": safe(statement)}},
        ],
    }
    info = library.C2paSignerInfo(signer.algorithm, signer.certificates, signer.key, None)
    try:
        with (
            library.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}) as settings,
            library.Context(settings) as context,
            library.Signer.from_info(info) as native,
            library.Builder(json.dumps(manifest), context) as builder,
        ):
            builder.set_no_embed()
            return builder.sign(native, media_type, io.BytesIO(image), io.BytesIO())
    except (library.C2paError, ValueError):
        pass
    # outside the except clause: no part of the key may travel with the cause
    raise SidecarError("the image cannot be signed: the certificate or the key is none that C2PA accepts")


def safe(value: Any) -> Any:
    """Returns the same data as C2PA keeps it: numbers in plain lists as texts, which would else turn into base64."""
    if isinstance(value, dict):
        return {key: safe(item) for key, item in value.items()}
    if isinstance(value, list):
        numbers = value and all(isinstance(item, int | float) for item in value)
        return [str(item) for item in value] if numbers else [safe(item) for item in value]
    return value


def read(manifest: bytes, image: bytes, media_type: str | None, trust: Sequence[bytes] = ()) -> Signature:
    """Checks a .c2pa file against the bytes of an image.

    Args:
        manifest: The bytes of the file.
        image: All bytes of the image.
        media_type: The image's media type; None if it is no image any more.
        trust: PEM certificates that `certificates.in_force` gave, e.g. the root of who signs; without any the best
            state is "valid, signer unknown".

    Returns:
        What the manifest is worth for these bytes.

    Raises:
        MissingPackage: c2pa-python is not installed.
    """
    library = require("c2pa", "c2pa")
    options: dict[str, Any] = {"verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False}}
    anchors = [pem.decode() for pem in trust]
    if anchors:
        options["trust"] = {"user_anchors": "\n".join(anchors)}
    try:
        with (
            library.Settings.from_dict(options) as settings,
            library.Context(settings) as context,
            library.Reader(media_type or "image/png", io.BytesIO(image), manifest, context) as reader,
        ):
            state, document = reader.get_validation_state(), json.loads(reader.json())
            active = document["manifests"][document["active_manifest"]]
            failures = _failures(document)
    except (library.C2paError, ValueError, LookupError, TypeError, RecursionError):
        return Signature("invalid", None, "it is damaged or was altered", None)
    return _judged(state, active, failures, bool(anchors))


def _failures(document: dict[str, Any]) -> set[str]:
    results = document["validation_results"]["activeManifest"]
    listed = [*results.get("failure", []), *document.get("validation_status", [])]
    return {status["code"] for status in listed}


def _judged(state: str | None, active: Any, failures: set[str], anchored: bool) -> Signature:
    signer = (active.get("signature_info") or {}).get("common_name")
    if state == "Trusted" and anchored and not failures:
        return Signature("trusted", signer, None, _signed(active))
    if state == "Valid" and failures == {_UNKNOWN_SIGNER}:
        return Signature("valid, signer unknown", signer, None, _signed(active))
    if _OTHER_FILE in failures and failures <= {_OTHER_FILE, _UNKNOWN_SIGNER}:
        return Signature("invalid", signer, "it was made for other bytes than those of this file", _signed(active))
    if _EXPIRED in failures:
        return Signature("invalid", signer, "the signer's certificate has expired", None)
    return Signature("invalid", signer, "it is damaged or was altered", None)


def _signed(active: Any) -> str | None:
    """The digest in our assertion, if there is exactly one."""
    data = [one.get("data") for one in active.get("assertions", []) if str(one.get("label", "")).startswith(LABEL)]
    if len(data) != 1 or not isinstance(data[0], dict):
        return None
    value = data[0].get("json_sha256")
    return value if isinstance(value, str) else None
