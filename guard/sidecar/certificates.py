"""X.509 certificates as C2PA wants them.

Reference: C2PA Technical Specification 2.2, section "X.509 Certificates": the leaf signs, is for e-mail protection or
the like, names its own and its issuer's key, and is no authority.
"""

import datetime
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, SidecarError, require

_YEARS = 10
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
# extended key usages that C2PA accepts in a signer: mail, documents, C2PA's own; and one that goes with no other
_PURPOSES = {"1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"}
_ALONE = {"2.5.29.37.0"}
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_USE = "use P-256, P-384, P-521 or Ed25519"


def local_chain(name: str) -> tuple[bytes, bytes, bytes]:
    """Returns leaf and intermediate certificate, the leaf's private key, and the root certificate, each as PEM.

    Raises InputError for a name that a certificate cannot hold, MissingPackage without cryptography.
    """
    if not 1 <= len(name) <= 50 or not name.isprintable():
        raise InputError("the name in a certificate has 1 to 50 printable characters")
    root_key, root = _issued(f"{name} root", name, None, depth=1)
    middle_key, middle = _issued(f"{name} issuer", name, (root_key, root), depth=0)
    leaf_key, leaf = _issued(name, name, (middle_key, middle), depth=None)
    serialization = require("cryptography.hazmat.primitives.serialization", "provenance")
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + middle.public_bytes(pem), key, root.public_bytes(pem)


def _issued(name: str, organization: str, issuer: tuple[Any, Any] | None, depth: int | None) -> tuple[Any, Any]:
    """A new key and its certificate; `depth` is how many authorities may follow, None for the leaf."""
    x509 = require("cryptography.x509", "provenance")
    ec = require("cryptography.hazmat.primitives.asymmetric.ec", "provenance")
    hashes = require("cryptography.hazmat.primitives.hashes", "provenance")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization),
        ]
    )
    issuer_key, issued_by = (key, subject) if issuer is None else (issuer[0], issuer[1].subject)
    now, authority = datetime.datetime.now(datetime.timezone.utc), depth is not None
    allowed = ("key_cert_sign", "crl_sign") if authority else ("digital_signature",)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=depth), critical=True)
        .add_extension(x509.KeyUsage(**{use: use in allowed for use in _USES}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return key, builder.sign(issuer_key, hashes.SHA256())


def algorithm_of(chain: bytes, secret: bytes, certificate: Path, key: Path) -> str:
    """Returns C2PA's name for the key's algorithm, once certificate and key are found to belong together.

    Raises SidecarError, which never quotes the key.
    """
    leaf, private = _leaf(chain, certificate), _private(secret, key)
    public = public_key(leaf)
    if public is None:
        raise SidecarError(f"the certificate {certificate} is for a key of no kind that signs here: {_USE}")
    if public != private.public_key():
        raise SidecarError(f"the private key {key} does not belong to the certificate {certificate}: give its own")
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.timezone.utc):
        raise SidecarError(f"the certificate {certificate} has expired: make a new key with `cryptomnesia keys new`")
    algorithm = algorithm_by_key(public)
    if algorithm is None:
        raise SidecarError(f"the private key {key} is of no kind that signs here: {_USE}")
    return algorithm


def algorithm_by_key(public: Any) -> str | None:
    """Returns C2PA's name for what a public key verifies here; None for RSA, other curves and all else."""
    if type(public).__name__.endswith("Ed25519PublicKey"):
        return "ed25519"
    return _ALGORITHMS.get(getattr(getattr(public, "curve", None), "name", ""))


def public_key(certificate: Any) -> Any:
    """Returns a certificate's public key; None for one that cryptography does not know, or that is damaged."""
    exceptions = require("cryptography.exceptions", "provenance")
    try:
        return certificate.public_key()
    except (ValueError, exceptions.UnsupportedAlgorithm):
        return None


def _leaf(chain: bytes, path: Path) -> Any:
    return certificates(chain, str(path))[0]


def certificates(pem: bytes, name: str) -> list[Any]:
    """Returns the certificates in PEM bytes, at least one; `name` is what errors call them.

    Raises SidecarError if there is none.
    """
    x509 = require("cryptography.x509", "provenance")
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnicodeError) as error:
        raise SidecarError(
            f"{name} holds no PEM certificate: give a file that begins with BEGIN CERTIFICATE"
        ) from error


def in_force(pem: bytes, name: str) -> bytes:
    """Returns those of the PEM certificates that are valid today, as PEM. Raises SidecarError where there is none."""
    serialization = require("cryptography.hazmat.primitives.serialization", "provenance")
    now, listed = datetime.datetime.now(datetime.timezone.utc), certificates(pem, name)
    good = [one for one in listed if one.not_valid_before_utc <= now <= one.not_valid_after_utc]
    if not good:
        what = "has expired" if listed[0].not_valid_after_utc < now else "is not valid yet"
        raise SidecarError(f"the certificate {name} {what}, so it is not trusted: ask the signer for a new one")
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in good)


def name_of(certificate: Any) -> str | None:
    """Returns the common name in a certificate, or None."""
    x509 = require("cryptography.x509", "provenance")
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else None


def described(certificate: Any) -> dict[str, Any]:
    """Returns what people ask of a certificate, as plain data: name, issuer, the days it is valid, serial number."""
    x509 = require("cryptography.x509", "provenance")
    issuer = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return {
        "name": name_of(certificate) or certificate.subject.rfc4514_string(),
        "issuer": str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
        "since": certificate.not_valid_before_utc.date().isoformat(),
        "until": certificate.not_valid_after_utc.date().isoformat(),
        "serial": str(certificate.serial_number),
    }


def why_refused(chain: Sequence[Any], revoked: Collection[int] = ()) -> str | None:
    """Returns why nothing may be signed with a chain of certificates, leaf first, now; None if it may.

    A certificate is refused that is out of date, that was revoked, and one for other uses than to sign documents.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    if any(one.serial_number in revoked for one in chain):
        return "the signer's certificate was revoked"
    if any(one.not_valid_after_utc < now for one in chain):
        return "the signer's certificate has expired"
    if any(one.not_valid_before_utc > now for one in chain):
        return "the signer's certificate is not valid yet"
    return None if _signs(chain[0]) else "the signer's certificate is none to sign images with"


def _signs(leaf: Any) -> bool:
    x509 = require("cryptography.x509", "provenance")
    try:
        extensions = leaf.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = {one.dotted_string for one in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value}
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    try:
        authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    return usage.digital_signature and not authority and bool(purposes & _PURPOSES) and not purposes & _ALONE


def leads_to(chain: Sequence[Any], anchors: Sequence[Any]) -> bool:
    """Returns whether a chain of certificates, leaf first, ends at one of the anchors, each issued by the next."""
    held = {_fingerprint(one) for one in anchors}
    for number, one in enumerate(chain):
        if _fingerprint(one) in held or any(_issued_by(one, anchor, number) for anchor in anchors):
            return True
        if number + 1 == len(chain) or not _issued_by(one, chain[number + 1], number):
            return False
    return False


def _issued_by(one: Any, issuer: Any, below: int) -> bool:
    """Whether an authority may issue certificates with so many below that one, and has issued it."""
    x509 = require("cryptography.x509", "provenance")
    exceptions = require("cryptography.exceptions", "provenance")
    try:
        one.verify_directly_issued_by(issuer)
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except (
        exceptions.InvalidSignature,
        exceptions.UnsupportedAlgorithm,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        ValueError,
        TypeError,
    ):
        return False
    return limits.ca and usage.key_cert_sign and (limits.path_length is None or limits.path_length >= below)


def _fingerprint(certificate: Any) -> bytes:
    return certificate.fingerprint(require("cryptography.hazmat.primitives.hashes", "provenance").SHA256())


def revoked_serials(data: bytes, name: str) -> frozenset[int]:
    """Returns the serial numbers of revoked certificates in a file.

    Args:
        data: A certificate revocation list, PEM or DER, or a text with one serial number a line: decimal, or
            hexadecimal with 0x or with colons. Lines that begin with # are passed over.
        name: What errors call the file.

    Raises:
        SidecarError: It is neither, or a list that should have been replaced by now.
        MissingPackage: cryptography is not installed.
    """
    x509 = require("cryptography.x509", "provenance")
    try:
        if b"-----BEGIN X509 CRL-----" in data:
            listed = x509.load_pem_x509_crl(data)
        elif data[:1] == b"\x30":
            listed = x509.load_der_x509_crl(data)
        else:
            return frozenset(_serial(line) for line in data.decode("ascii").splitlines() if _counts(line))
    except ValueError as error:
        raise SidecarError(
            f"{name} is no list of revoked certificates: give a CRL, or a text with a serial number a line"
        ) from error
    until = listed.next_update_utc
    if until is not None and until < datetime.datetime.now(datetime.timezone.utc):
        raise SidecarError(f"the list of revoked certificates {name} is out of date: get the new one")
    return frozenset(one.serial_number for one in listed)


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _serial(line: str) -> int:
    text = line.strip()
    return int(text.replace(":", ""), 16) if ":" in text or text.lower().startswith("0x") else int(text)


def _private(secret: bytes, path: Path) -> Any:
    serialization = require("cryptography.hazmat.primitives.serialization", "provenance")
    exceptions = require("cryptography.exceptions", "provenance")
    usable = b"-----BEGIN PRIVATE KEY-----" in secret
    try:
        if usable:
            return serialization.load_pem_private_key(secret, password=None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        usable = False
    # outside the except clause: no part of the key may travel with the cause
    raise SidecarError(f"the private key {path} cannot be used: it must be an unencrypted PKCS#8 key in PEM")
