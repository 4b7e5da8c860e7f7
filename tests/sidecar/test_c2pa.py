"""The signed sidecar: what it proves, and that it never takes a change for good."""

import datetime
import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from cryptomnesia.errors import SidecarError
from cryptomnesia.sidecar import c2pa_path, certificates, load_signer, new_chain, sidecar_path, verify, write_sidecar
from cryptomnesia.sidecar.c2pa import LABEL, read
from cryptomnesia.sidecar.keys import CERTIFICATE, KEY, Signer
from cryptomnesia.sidecar.signing import safe, sign

from ..helpers.provenance import GENERATION, REPORT, REWRITTEN, document, edit, pixels, saved

c2pa = pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return new_chain(tmp_path_factory.mktemp("keys") / "mine", name="someone")


@pytest.fixture
def signer(chain):
    return load_signer(chain.certificate, chain.key)


@pytest.fixture
def image(tmp_path, signer):
    return saved(tmp_path, report=REWRITTEN, c2pa=signer)


def manifest(image: Path) -> dict:
    with c2pa.Reader("image/png", image.open("rb"), c2pa_path(image).read_bytes()) as reader:
        found = json.loads(reader.json())
    return found["manifests"][found["active_manifest"]]


def text(found):
    return " ".join(found.lines)


def test_an_unknown_signer_is_not_invalid(image):
    found = verify(image)
    assert found.matches and (found.signature, found.agreement) == ("valid, signer unknown", "same")
    assert "a signer you have not said you trust, who goes by someone" in text(found)
    assert "not signed" not in text(found) and "invalid" not in text(found)


def test_a_trusted_signer(image, chain):
    found = verify(image, trust=[chain.root])
    assert found.matches and (found.signature, found.agreement) == ("trusted", "same")
    assert "by someone, whom you trust" in text(found)


def test_another_root_is_no_trust(image, tmp_path):
    other = new_chain(tmp_path / "other", name="someone")
    assert verify(image, trust=[other.root]).signature == "valid, signer unknown"
    both = verify(image, trust=[other.root, other.certificate])
    assert both.signature == "valid, signer unknown"


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_other_formats(tmp_path, signer, chain, name):
    assert verify(saved(tmp_path, name, c2pa=signer), trust=[chain.root]).signature == "trusted"


def test_the_image_is_left_alone(tmp_path, signer):
    plain, signed = saved(tmp_path, "a.png"), saved(tmp_path, "b.png", c2pa=signer)
    assert plain.read_bytes() == signed.read_bytes()
    assert c2pa_path(signed).stat().st_size < 12_000


def test_the_manifest_says_what_the_sidecar_says(image):
    found = {entry["label"]: entry["data"] for entry in manifest(image)["assertions"]}
    assert found[LABEL]["statement"] == document(image)
    actions = next(data["actions"] for label, data in found.items() if label.startswith("c2pa.actions"))
    assert actions[0]["action"] == "c2pa.created"
    assert actions[0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert not [label for label in found if "thumbnail" in label]


def test_numbers_in_lists_are_texts():
    assert safe({"a": [1, 2.5], "b": [], "c": [{"d": [2**70]}], "e": ["x", 1]}) == {
        "a": ["1", "2.5"],
        "b": [],
        "c": [{"d": [str(2**70)]}],
        "e": ["x", 1],
    }


@pytest.mark.parametrize("trusting", [False, True])
def test_an_edited_sidecar_is_found(image, chain, trusting):
    trust = [chain.root] if trusting else []
    for change in (
        lambda d: d["predicate"]["check"].update(p_value=0.9),
        lambda d: d["predicate"].update(limitations=[]),
        lambda d: d["predicate"]["prompt"].update(original="a cat"),
    ):
        before = sidecar_path(image).read_bytes()
        edit(image, change)
        found = verify(image, trust=trust)
        assert found.sidecar == "found" and not found.matches and found.agreement == "differs"
        assert "does not say what was signed" in text(found)
        sidecar_path(image).write_bytes(before)


def test_layout_is_no_edit(image):
    sidecar_path(image).write_text(json.dumps(document(image), sort_keys=True))
    assert verify(image).matches


def test_a_changed_image_is_found(image, chain):
    Image.fromarray(pixels()).save(image, compress_level=1)
    found = verify(image, trust=[chain.root])
    assert (found.file, found.pixels, found.signature) == ("changed", "same", "invalid")
    assert found.agreement == "same" and "what was signed for the file as it was then" in text(found)
    assert "made for other bytes" in text(found)


def test_a_consistent_forgery_is_found(tmp_path, image):
    """Whoever writes a sidecar for a changed image cannot make the signature fit."""
    signed = c2pa_path(image).read_bytes()
    Image.fromarray(pixels(5)).save(image)
    write_sidecar(image, None, GENERATION)
    c2pa_path(image).write_bytes(signed)
    found = verify(image)
    assert found.file == "same" and not found.matches
    assert (found.signature, found.agreement) == ("invalid", "differs")


def test_a_signature_over_something_else_covers_nothing(image, signer):
    statement = document(image)
    from cryptomnesia.sidecar import c2pa as module

    label, module.LABEL = module.LABEL, "org.example.other"
    try:
        c2pa_path(image).write_bytes(sign(statement, image.read_bytes(), "image/png", signer))
    finally:
        module.LABEL = label
    found = verify(image)
    assert found.signature == "valid, signer unknown" and found.agreement == "differs" and not found.matches
    assert "does not cover the sidecar" in text(found)


def test_damaged_manifests_are_invalid(image):
    whole = c2pa_path(image).read_bytes()
    for data in (b"", b"junk", whole[:-1], whole[: len(whole) // 2], image.read_bytes(), whole[::-1]):
        c2pa_path(image).write_bytes(data)
        found = verify(image)
        assert not found.matches and found.signature == "invalid"


def test_every_changed_byte_of_the_claim_is_found(image):
    """All positions would take long: one in 97."""
    whole = c2pa_path(image).read_bytes()
    media = image.read_bytes()
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 0x20
        signed = read(bytes(data), media, "image/png")
        good = signed.state != "invalid"
        # a few bytes are padding: what was signed must be the same then
        assert not good or signed.statement == read(whole, media, "image/png").statement


def test_a_huge_manifest_is_not_read(image):
    with c2pa_path(image).open("ab") as file:
        file.truncate(33 << 20)
    assert verify(image).signature == "invalid"


def test_without_c2pa_the_signature_is_not_checked(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = verify(image)
    assert found.signature == "not checked (c2pa missing)" and found.agreement is None
    assert "pip install c2pa-python; until then it vouches for nothing" in text(found)


def test_without_c2pa_the_json_sidecar_is_written_and_the_error_says_so(tmp_path, signer, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SidecarError, match=r"was saved, .*signature was not: .*cryptomnesia\[c2pa\]"):
        saved(tmp_path, c2pa=signer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.png", "image.png.cryptomnesia.json"]
    assert verify(tmp_path / "image.png").matches


def test_true_takes_the_signer_of_the_environment(tmp_path, chain, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(SidecarError, match="cryptomnesia keys new"):
        saved(tmp_path, c2pa=True)
    monkeypatch.setenv(CERTIFICATE, str(chain.certificate))
    monkeypatch.setenv(KEY, str(chain.key))
    assert verify(saved(tmp_path, c2pa=True), trust=[chain.root]).signature == "trusted"


def test_saving_again_without_a_signature_removes_the_old_one(image):
    saved(image.parent, seed=3)
    assert verify(image).matches and not c2pa_path(image).exists()


def test_a_moved_sidecar_brings_its_signature(image, tmp_path):
    (tmp_path / "else").mkdir()
    for path in (sidecar_path(image), c2pa_path(image)):
        shutil.move(path, tmp_path / "else" / path.name)
    found = verify(image, tmp_path / "else" / sidecar_path(image).name)
    assert found.matches and found.signature == "valid, signer unknown"


def test_no_key_anywhere(image, chain):
    secret = chain.key.read_bytes().split(b"\n")[1]
    for path in image.parent.iterdir():
        assert secret not in path.read_bytes() and b"PRIVATE" not in path.read_bytes()


def test_a_signer_that_c2pa_refuses_costs_one_line_without_the_key(tmp_path, signer, chain):
    root_only = Signer(chain.root.read_bytes(), "es256", signer.key)
    with pytest.raises(SidecarError) as raised:
        saved(tmp_path, c2pa=root_only)
    assert "cannot be signed" in str(raised.value) and "\n" not in str(raised.value)
    assert "PRIVATE" not in str(raised.value)


def test_what_is_trusted_must_be_a_certificate(image, chain, tmp_path):
    (tmp_path / "a.pem").write_text("hello")
    for path in (tmp_path / "a.pem", tmp_path / "absent.pem", chain.key):
        with pytest.raises(SidecarError, match="certificate"):
            verify(image, trust=[path])


def issued(days_from, days_to, key=None):
    """A self-signed certificate as PEM, valid between these days from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone root")])
    first, last = (now + datetime.timedelta(days=days) for days in (days_from, days_to))
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, first, last)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def test_expired_roots_are_not_trusted(image, chain, tmp_path):
    place = tmp_path / "root.pem"
    for days, words in (((-9, -1), "has expired"), ((1, 9), "is not valid yet")):
        place.write_bytes(issued(*days))
        with pytest.raises(SidecarError, match=f"{words}, so it is not trusted"):
            verify(image, trust=[place])
    place.write_bytes(issued(-9, -1) + chain.root.read_bytes())  # a bundle may hold old ones, too
    assert verify(image, trust=[place]).result == "vouched for"


def test_a_root_that_expires_is_not_trusted_any_more(tmp_path, monkeypatch):
    """A whole chain that was good when the image was signed."""
    now = datetime.datetime.now(datetime.timezone.utc)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return now + datetime.timedelta(days=365 * 11)

    chain = new_chain(tmp_path / "mine")
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key))
    assert verify(image, trust=[chain.root]).result == "vouched for"
    monkeypatch.setattr(certificates.datetime, "datetime", Later)
    with pytest.raises(SidecarError, match="has expired"):
        verify(image, trust=[chain.root])


def test_a_missing_sidecar_does_not_hide_the_signature(image):
    sidecar_path(image).unlink()
    found = verify(image)
    assert (found.sidecar, found.signature, found.matches) == ("missing", "valid, signer unknown", False)
    assert REPORT.prompt not in text(found)
