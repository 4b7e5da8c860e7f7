"""Whom verify trusts: certificates out of date, revoked or for other uses vouch for nothing."""

import base64
import datetime
import json
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cryptomnesia.errors import SidecarError
from cryptomnesia.sidecar import c2pa_path, certificates, dsse, sidecar_path, verify
from cryptomnesia.sidecar.c2pa import read

from ..helpers.certificates import MAIL, issued, on_no_curve
from ..helpers.provenance import document, saved

pytest.importorskip("c2pa")
USES = x509.ExtendedKeyUsageOID
EMBEDDED = {"embed": True}
BESIDE = {}


@pytest.fixture(scope="module")
def chain():
    return issued()


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def envelope(image):
    return json.loads(sidecar_path(image).read_text())


def later(monkeypatch, days):
    """Certificates are looked at as in so many days."""
    now = datetime.datetime.now(datetime.timezone.utc)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return now + datetime.timedelta(days=days)

    monkeypatch.setattr(certificates.datetime, "datetime", Later)


@pytest.mark.parametrize("how", [EMBEDDED, BESIDE], ids=["embedded", "beside"])
@pytest.mark.parametrize("kind", ["serials", "hex", "list", "der"])
def test_revoked_certificates_vouch_for_nothing(tmp_path, chain, how, kind):
    image = saved(tmp_path, c2pa=chain.signer, **how)
    trust, serial = [chain.root_file(tmp_path)], chain.leaf.serial_number
    assert verify(image, trust=trust).result == "vouched for"
    revoked, others = tmp_path / "revoked", tmp_path / "others"
    contents = {
        "serials": f"# ours\n{serial}\n".encode(),
        "hex": f"\n0x{serial:x}\n".encode(),
        "list": chain.revocation_list(serial),
        "der": x509.load_pem_x509_crl(chain.revocation_list(serial)).public_bytes(certificates_der()),
    }
    revoked.write_bytes(contents[kind])
    others.write_bytes(chain.revocation_list(serial + 1) if kind in ("list", "der") else b"17\n")
    found = verify(image, trust=trust, revoked=[others, revoked])
    assert (found.result, found.signature, found.envelope) == ("nobody vouches", "refused", "refused")
    assert "was revoked" in " ".join(found.lines) and "not accepted" in found.headline
    assert verify(image, trust=trust, revoked=[others]).result == "vouched for"


def certificates_der():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_lists_out_of_date_or_broken_are_refused(tmp_path, chain):
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    place = tmp_path / "revoked"
    place.write_bytes(chain.revocation_list(1, days=-1))
    with pytest.raises(SidecarError, match="out of date"):
        verify(image, revoked=[place])
    for content in (b"-----BEGIN X509 CRL-----\nx", b"\x30\x82junk", b"no number", b"\xff"):
        place.write_bytes(content)
        with pytest.raises(SidecarError, match="no list of revoked certificates"):
            verify(image, revoked=[place])


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
@pytest.mark.parametrize("how", [EMBEDDED, BESIDE], ids=["embedded", "beside"])
def test_certificates_out_of_date_sign_nothing(tmp_path, days, how):
    with pytest.raises(SidecarError, match="cannot be signed"):
        saved(tmp_path, c2pa=issued(days=days).signer, **how)
    assert verify(tmp_path / "image.png").result in ("nobody vouches",)


def test_a_signature_whose_certificate_expired_since(tmp_path, chain, monkeypatch):
    """C2PA looks at the machine's clock, the envelope at ours: both refuse."""
    image = saved(tmp_path, c2pa=chain.signer)
    trust = chain.root.public_bytes(certificates_pem())
    for days, reason in ((31, "has expired"), (-31, "is not valid yet")):
        with monkeypatch.context() as patch:
            later(patch, days)
            sealed = dsse.judged(envelope(image), [trust])
        assert (sealed.state, sealed.reason) == ("refused", f"the signer's certificate {reason}")
    assert dsse.judged(envelope(image), [trust]).state == "trusted"


def certificates_pem():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.PEM


def test_c2pas_own_word_on_expired_certificates_is_a_refusal(tmp_path, monkeypatch):
    """Nothing can be signed with an expired certificate, so the reader's answer is taken as it would be."""
    from cryptomnesia.sidecar import c2pa as module

    chain = issued()
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    real = module._codes
    for code, reason in (
        ("signingCredential.expired", "has expired"),
        ("signingCredential.invalid", "none to sign images with"),
        ("signingCredential.ocsp.revoked", "was revoked"),
    ):
        monkeypatch.setattr(
            module,
            "_codes",
            lambda found, kind, code=code: real(found, kind) | ({code} if kind == "failure" else set()),
        )
        found = verify(image)
        assert (found.signature, found.result) == ("refused", "nobody vouches") and reason in " ".join(found.lines)
    monkeypatch.setattr(module, "_codes", lambda found, kind: {"claimSignature.mismatch", "signingCredential.expired"})
    assert verify(image).result == "changed"


@pytest.mark.parametrize("uses", [(USES.CODE_SIGNING,), (USES.ANY_EXTENDED_KEY_USAGE, MAIL), ()])
def test_certificates_for_other_uses_sign_nothing(tmp_path, uses):
    chain = issued(uses=uses)
    with pytest.raises(SidecarError, match="cannot be signed"):
        saved(tmp_path, c2pa=chain.signer, embed=True)
    found = verify(tmp_path / "image.png", trust=[chain.root_file(tmp_path)])
    assert (found.result, found.envelope) == ("nobody vouches", "refused")
    assert "none to sign images with" in " ".join(found.lines)


@pytest.mark.parametrize("kind", [{"curve": ec.SECP384R1()}, {"curve": ec.SECP521R1()}, {"edwards": True}])
def test_other_algorithms(tmp_path, kind):
    chain = issued(**kind)
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    found = verify(image, trust=[chain.root_file(tmp_path)])
    assert (found.result, found.signature, found.envelope) == ("vouched for", "trusted", "trusted")


def test_an_authority_with_an_rsa_key(tmp_path):
    chain = issued(root_key=rsa.generate_private_key(65537, 2048))
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    found = verify(image, trust=[chain.root_file(tmp_path)])
    assert (found.result, found.signature, found.envelope) == ("vouched for", "trusted", "trusted")


@pytest.mark.parametrize("known", [True, False])
def test_an_envelope_by_a_key_that_is_not_checked_here_is_not_called_changed(tmp_path, chain, known):
    """Another program may have signed it, e.g. with RSA: that it cannot be checked says nothing against it."""
    image = saved(tmp_path, c2pa=chain.signer)
    c2pa_path(image).unlink()
    said = envelope(image)
    other = issued(key=rsa.generate_private_key(65537, 2048))
    text = base64.b64decode(said["payload"])
    message = dsse._encoding(said["payloadType"], text)
    signature = other.key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    certificate = other.signer.certificates if known else on_no_curve(chain.signer.certificates)
    said["signatures"][0].update(sig=base64.b64encode(signature).decode(), cert=certificate.decode())
    sidecar_path(image).write_text(json.dumps(said))
    found = verify(image, trust=[other.root_file(tmp_path)])
    assert (found.result, found.envelope) == ("nobody vouches", "refused")
    assert "of a kind that is not checked here" in " ".join(found.lines)


def test_a_key_of_another_algorithm_than_its_certificates_is_refused(tmp_path, chain):
    from cryptomnesia.sidecar import Signer

    odd = Signer(chain.signer.certificates, "es384", chain.signer.key)
    with pytest.raises(SidecarError, match=r"was saved, .*cannot be signed"):
        saved(tmp_path, c2pa=odd, embed=True)
    assert verify(tmp_path / "image.png").signature == "none"


def test_the_envelope_is_what_in_totos_tools_take(tmp_path, chain):
    """By DSSE's own words, and nothing of this library: type and text are signed, with their lengths."""
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    said = envelope(image)
    assert set(said) == {"payload", "payloadType", "signatures"}
    text = base64.b64decode(said["payload"])
    kind = said["payloadType"].encode()
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(text)).encode(), text])
    signature = base64.b64decode(said["signatures"][0]["sig"])
    chain.leaf.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    assert json.loads(text)["_type"] == "https://in-toto.io/Statement/v1" and kind == b"application/vnd.in-toto+json"
    assert x509.load_pem_x509_certificate(said["signatures"][0]["cert"].encode()) == chain.leaf


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(payload=base64.b64encode(base64.b64decode(said["payload"]) + b" ").decode()),
        lambda said: said["signatures"][0].update(sig="AAAA"),
        lambda said: said["signatures"][0].update(cert=""),
        lambda said: said["signatures"][0].update(cert=7),
        lambda said: said["signatures"][0].update(sig="no base64"),
        lambda said: said["signatures"][0].update(cert=pem_of(issued().leaf)),
    ],
)
def test_a_changed_envelope_is_found(tmp_path, chain, change):
    image = saved(tmp_path, c2pa=chain.signer)
    said = envelope(image)
    change(said)
    sidecar_path(image).write_text(json.dumps(said))
    found = verify(image, trust=[chain.root_file(tmp_path)])
    assert (found.result, found.envelope) == ("changed", "invalid")


def pem_of(certificate):
    return certificate.public_bytes(certificates_pem()).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(more=1),
        lambda said: said.update(payloadType="text/plain"),
        lambda said: said.update(payload="%"),
        lambda said: said.update(payload=1),
        lambda said: said.update(signatures=[]),
        lambda said: said["signatures"].append(said["signatures"][0]),
    ],
)
def test_what_is_no_envelope_is_malformed(tmp_path, chain, change):
    image = saved(tmp_path, c2pa=chain.signer)
    said = envelope(image)
    change(said)
    sidecar_path(image).write_text(json.dumps(said))
    found = verify(image)
    assert found.sidecar == "malformed" and found.result == "cannot tell"


def test_a_lookalike_does_not_lead_to_a_trusted_root(chain):
    other = issued()
    assert certificates.leads_to([chain.leaf], [chain.root]) and certificates.leads_to(
        [chain.leaf, chain.root], [chain.root]
    )
    for listed, roots in (
        ([other.leaf], [chain.root]),
        ([chain.leaf], []),
        ([other.leaf, chain.root], [chain.root]),  # not issued by what follows it
        ([other.leaf, chain.leaf], [chain.leaf]),  # a leaf is no authority
    ):
        assert not certificates.leads_to(listed, roots)


def test_the_envelope_alone_vouches_where_c2pa_is_missing(tmp_path, chain, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SidecarError, match=r"without a signature.*c2pa"):
        saved(tmp_path, c2pa=chain.signer, embed=True)
    found = verify(tmp_path / "image.png", trust=[chain.root_file(tmp_path)])
    assert (found.result, found.signature, found.envelope) == ("vouched for", "none", "trusted")
    assert document(tmp_path / "image.png")["predicate"]["marking"]["training"] is None


def test_a_manifest_in_the_file_is_not_checked_without_c2pa(tmp_path, chain, monkeypatch):
    image = saved(tmp_path, c2pa=chain.signer, embed=True)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    sidecar_path(image).unlink()
    found = verify(image, trust=[chain.root_file(tmp_path)])
    assert found.result == "cannot tell" and "pip install c2pa-python" in " ".join(found.lines)


def test_nothing_is_read_from_what_is_no_image():
    assert read(None, b"jumb", None) is None
