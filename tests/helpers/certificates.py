"""Chains of certificates as tests need them: of any age, for any use, revoked or not."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cryptomnesia.sidecar import Signer

MAIL = x509.ExtendedKeyUsageOID.EMAIL_PROTECTION
_OTHER_USES = ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A leaf, its key and its root, and what they are as files and as a signer."""

    leaf: Any
    root: Any
    root_key: Any
    key: Any
    algorithm: str = "es256"

    @property
    def signer(self) -> Signer:
        """What signs with the leaf."""
        secret = self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Signer(self.leaf.public_bytes(_PEM), self.algorithm, secret)

    def root_file(self, folder: Path) -> Path:
        """The root certificate as a PEM file."""
        (folder / "root.pem").write_bytes(self.root.public_bytes(_PEM))
        return folder / "root.pem"

    def revocation_list(self, *serials: int, days: float = 7) -> bytes:
        """A PEM list by the root that revokes these, to be replaced in so many days."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateRevocationListBuilder(
            self.root.subject, min(now, now + datetime.timedelta(days=days - 1)), now + datetime.timedelta(days=days)
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(serial, now - datetime.timedelta(hours=1)).build()
            )
        return builder.sign(self.root_key, hashes.SHA256()).public_bytes(_PEM)


def issued(
    *,
    days: tuple[float, float] = (-1, 30),
    uses: tuple = (MAIL,),
    curve: Any = None,
    edwards: bool = False,
    key: Any = None,
    root_key: Any = None,
) -> Issued:
    """A chain whose leaf is valid between these days from now, for these extended uses; with these keys, if given."""
    root_key = root_key or ec.generate_private_key(ec.SECP256R1())
    if key is None:
        key = ed25519.Ed25519PrivateKey.generate() if edwards else ec.generate_private_key(curve or ec.SECP256R1())
    root = _certificate("test root", root_key, None, (-400, 400), None)
    leaf = _certificate("tester", key, (root_key, root), days, uses)
    size = getattr(getattr(key, "curve", None), "key_size", 0)
    algorithm = "ed25519" if edwards else {256: "es256", 384: "es384", 521: "es512"}.get(size, "ps256")
    return Issued(leaf, root, root_key, key, algorithm)


def on_no_curve(certificate: bytes) -> bytes:
    """The PEM of a certificate whose key lies on a curve that does not exist."""
    curve, other = (bytes.fromhex(f"06082a8648ce3d0301{last}") for last in ("07", "7f"))
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    assert der.count(curve) == 1
    return x509.load_der_x509_certificate(der.replace(curve, other)).public_bytes(_PEM)


def _certificate(name: str, key: Any, issuer: Any, days: tuple[float, float], uses: tuple | None) -> Any:
    now, top = datetime.datetime.now(datetime.timezone.utc), issuer is None
    subject = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, name), x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "test")]
    )
    issuer_key, issued_by = (key, subject) if top else (issuer[0], issuer[1].subject)
    allowed = dict.fromkeys(_OTHER_USES, False) | {"content_commitment": False}
    allowed |= {"digital_signature": not top, "key_cert_sign": top, "crl_sign": top}
    first, last = (now + datetime.timedelta(days=one) for one in days)
    builder = (
        x509.CertificateBuilder(issued_by, subject, key.public_key(), x509.random_serial_number(), first, last)
        .add_extension(x509.BasicConstraints(ca=top, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**allowed), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
