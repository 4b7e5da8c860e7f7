"""A time authority of RFC 3161 on loopback, whose answers openssl makes; and others that misbehave."""

import datetime
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_SETTINGS = """
[tsa]
default_tsa = usual
[usual]
serial = {folder}/serial
signer_cert = {folder}/authority.pem
signer_key = {folder}/authority.key
certs = {folder}/root.pem
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
signer_digest = sha256
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""
_USES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


@dataclass
class Authority:
    """A running authority.

    Attributes:
        address: Where it answers.
        root: PEM file with its root certificate.
        manner: "good", "other" (the answer to an earlier question), "garbage", "refuses", "hangs" or "moved".
        asked: The questions that it got.
    """

    address: str
    root: Path
    manner: str = "good"
    asked: list[bytes] = field(default_factory=list)
    earlier: bytes = b""


@contextmanager
def time_authority(folder: Path) -> Iterator[Authority]:
    """Starts one, with keys and files in that folder."""
    _certificates(folder)
    (folder / "serial").write_text("01\n")
    (folder / "settings").write_text(_SETTINGS.format(folder=folder))
    leave = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = self.rfile.read(int(self.headers["Content-Length"]))
            authority.asked.append(question)
            if authority.manner == "hangs":
                leave.wait(30)
                return
            if authority.manner in ("refuses", "moved"):
                self.send_response(503 if authority.manner == "refuses" else 302)
                self.send_header("Location", f"{authority.address}/elsewhere")
                self.end_headers()
                return
            answer = b"garbage" if authority.manner == "garbage" else _answer(folder, question)
            authority.earlier, answer = answer, authority.earlier if authority.manner == "other" else answer
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority = Authority(f"http://127.0.0.1:{server.server_address[1]}/stamp", folder / "root.pem")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield authority
    finally:
        leave.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(folder: Path, question: bytes) -> bytes:
    (folder / "question").write_bytes(question)
    command = ["openssl", "ts", "-reply", "-config", folder / "settings", "-queryfile", folder / "question"]
    subprocess.run([*command, "-out", folder / "answer"], check=True, capture_output=True)
    return (folder / "answer").read_bytes()


def _certificates(folder: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "authority")}
    names = {
        name: x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COMMON_NAME, f"time {name}"),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "time"),
            ]
        )
        for name in keys
    }
    for name, key in keys.items():
        top = name == "root"
        issuer = keys["root"].public_key()
        uses = dict.fromkeys(_USES, False) | {"digital_signature": not top, "key_cert_sign": top, "crl_sign": top}
        builder = (
            x509.CertificateBuilder(names["root"], names[name], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=top, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**uses), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if not top:
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(purpose, critical=True)
        signed = builder.sign(keys["root"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(secret)
