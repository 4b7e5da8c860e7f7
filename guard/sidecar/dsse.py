"""The signed JSON sidecar: a DSSE envelope around the statement, which in-toto's tools verify with the signer's key.

The certificates lie in the envelope, so that whoever trusts their root needs no other file; programs that do not know
them pass them over. Reference: DSSE 1.0.2, https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..envelope import PAYLOAD_TYPE, payload
from ..errors import SidecarError, require
from . import certificates
from .keys import Signer
from .statement import LIMIT

_HASHES = {"es256": "SHA256", "es384": "SHA384", "es512": "SHA512"}


@dataclass(frozen=True)
class Sealed:
    """What an envelope's signature is worth.

    Attributes:
        state: "trusted", "valid, signer unknown", "refused" or "invalid"; see `c2pa.Signature`.
        signer: The name in the certificate, or None.
        reason: Why it is refused or invalid, or None.
    """

    state: Literal["trusted", "valid, signer unknown", "refused", "invalid"]
    signer: str | None
    reason: str | None


def sealed(statement: bytes, signer: Signer) -> bytes:
    """Returns the bytes of an envelope around a statement's JSON.

    Raises SidecarError where the key cannot sign, MissingPackage without cryptography.
    """
    leaf = certificates.certificates(signer.certificates, "the certificate")[0]
    signature = {
        "keyid": _key_id(leaf),
        "sig": base64.b64encode(_signature(signer, _encoding(PAYLOAD_TYPE, statement))).decode(),
        "cert": signer.certificates.decode("ascii", "replace"),
    }
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(statement).decode(),
        "signatures": [signature],
    }
    data = (json.dumps(document, indent=1) + "\n").encode()
    if len(data) > LIMIT:
        raise SidecarError(f"the signed sidecar would be larger than {LIMIT >> 20} MiB: shorten the prompt")
    return data


def judged(document: Mapping[str, Any], trust: Sequence[bytes] = (), revoked: Collection[int] = ()) -> Sealed:
    """Checks the signature of an envelope that `envelope.payload` takes.

    Args:
        document: The envelope.
        trust: PEM certificates that `certificates.in_force` gave; without any the best state is "valid, signer
            unknown".
        revoked: Serial numbers of certificates that are not to be trusted any more.

    Raises MissingPackage without cryptography.
    """
    (one,) = document["signatures"]
    try:
        chain = certificates.certificates(str(one.get("cert", "")).encode(), "the envelope")
        signature = base64.b64decode(str(one.get("sig", "")), validate=True)
    except (SidecarError, ValueError, binascii.Error):
        return Sealed("invalid", None, "it has no certificate, or no signature, that can be read")
    name = certificates.name_of(chain[0])
    key = certificates.public_key(chain[0])
    algorithm = None if key is None else certificates.algorithm_by_key(key)
    if algorithm is None:  # it may be good all the same
        return Sealed("refused", name, "its key is of a kind that is not checked here, such as RSA")
    if not _fits(key, algorithm, signature, _encoding(PAYLOAD_TYPE, payload(document))):
        return Sealed("invalid", name, "it was made for another text, or by another key")
    reason = certificates.why_refused(chain, revoked)
    if reason is not None:
        return Sealed("refused", name, reason)
    anchors = [one for pem in trust for one in certificates.certificates(pem, "a root")]
    known = certificates.leads_to(chain, anchors)
    return Sealed("trusted" if known else "valid, signer unknown", name, None)


def _encoding(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)


def _key_id(certificate: Any) -> str:
    serialization = require("cryptography.hazmat.primitives.serialization", "provenance")
    encoded = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def _signature(signer: Signer, message: bytes) -> bytes:
    serialization = require("cryptography.hazmat.primitives.serialization", "provenance")
    key = serialization.load_pem_private_key(signer.key, password=None)
    if signer.algorithm == "ed25519":
        return key.sign(message)
    ec = require("cryptography.hazmat.primitives.asymmetric.ec", "provenance")
    return key.sign(message, ec.ECDSA(_hash(signer.algorithm)))


def _hash(algorithm: str) -> Any:
    return getattr(require("cryptography.hazmat.primitives.hashes", "provenance"), _HASHES[algorithm])()


def _fits(key: Any, algorithm: str, signature: bytes, message: bytes) -> bool:
    exceptions = require("cryptography.exceptions", "provenance")
    try:
        if algorithm == "ed25519":
            key.verify(signature, message)
        else:
            ec = require("cryptography.hazmat.primitives.asymmetric.ec", "provenance")
            key.verify(signature, message, ec.ECDSA(_hash(algorithm)))
    except (exceptions.InvalidSignature, ValueError, TypeError):
        return False
    return True
