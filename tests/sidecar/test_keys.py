"""Keys: private from the first moment, never overwritten, never quoted."""

import json
import os
import stat
import traceback
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from cryptomnesia.errors import CryptomnesiaError, InputError, MissingPackage, SidecarError
from cryptomnesia.sidecar import config_folder, load_signer, new_chain
from cryptomnesia.sidecar import keys as module

from ..helpers.certificates import issued, on_no_curve

posix = pytest.mark.skipif(os.name != "posix", reason="permission bits")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Settings of a user who has none."""
    for name in (module.CERTIFICATE, module.KEY):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return new_chain(tmp_path_factory.mktemp("keys") / "mine", name="someone")


def certificates(chain):
    pem = chain.certificate.read_bytes() + chain.root.read_bytes()
    return x509.load_pem_x509_certificates(pem)


@posix
def test_only_the_owner_can_read_the_key(made):
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.key.parent.stat().st_mode) == 0o700


def test_the_chain_is_as_c2pa_wants_it(made):
    leaf, middle, root = certificates(made)
    for certificate, issuer in ((leaf, middle), (middle, root), (root, root)):
        certificate.verify_directly_issued_by(issuer)
        assert isinstance(certificate.public_key().curve, ec.SECP256R1)
        assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
        ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        aki = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert ski == aki
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]
    assert [c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for c in (leaf, middle, root)] == [
        False,
        True,
        True,
    ]
    assert made.key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == "someone"


def test_one_private_key_is_kept(made):
    kept = [path for path in made.key.parent.iterdir() if b"PRIVATE" in path.read_bytes()]
    assert kept == [made.key]


def test_nothing_is_overwritten(tmp_path):
    chain = new_chain(tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(SidecarError, match="exists and is not overwritten"):
        new_chain(tmp_path / "a")
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    chain.key.unlink()
    with pytest.raises(SidecarError, match="exists"):
        new_chain(tmp_path / "a")
    assert not chain.key.exists()


@posix
def test_a_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SidecarError, match="exists"):
        new_chain(tmp_path / "a")
    assert not (tmp_path / "elsewhere").exists()


def test_forbidden_folders(tmp_path):
    output = tmp_path / "output"
    (output / "sub").mkdir(parents=True)
    places = [output, output / "sub", output / "new" / "deep", tmp_path / "x" / ".." / "output"]
    if os.name == "posix":
        (tmp_path / "link").symlink_to(output / "sub")
        (tmp_path / "other").symlink_to(tmp_path)
        places += [tmp_path / "link", tmp_path / "link" / "deeper", tmp_path / "other" / "output"]
    for place in places:
        with pytest.raises(InputError, match="keep keys somewhere private"):
            new_chain(place, forbidden=[tmp_path / "temp", output])
    assert [path.name for path in output.iterdir()] == ["sub"]
    assert new_chain(tmp_path / "output-keys", forbidden=[output]).key.exists()


@posix
def test_folders_that_everybody_writes_to(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SidecarError, match="everybody may write"):
        new_chain(tmp_path / "open")
    assert list((tmp_path / "open").iterdir()) == []


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_key_in_a_folder_that_everybody_writes_to_is_not_used(tmp_path, mode):
    chain = new_chain(tmp_path / "a" / "b")
    (tmp_path / "a" / "b").chmod(mode)
    with pytest.raises(SidecarError, match=r"everybody may write to .*b: choose another folder"):
        load_signer(chain.certificate, chain.key)
    (tmp_path / "link.pem").symlink_to(chain.key)
    with pytest.raises(SidecarError, match="everybody may write"):
        load_signer(chain.certificate, tmp_path / "link.pem")


@posix
def test_a_folder_that_others_could_put_another_into_the_place_of(tmp_path):
    chain = new_chain(tmp_path / "a" / "b")
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(SidecarError, match=r"everybody may write to .*a: choose"):
        load_signer(chain.certificate, chain.key)
    with pytest.raises(SidecarError, match="everybody may write"):
        new_chain(tmp_path / "a" / "c")
    (tmp_path / "a").chmod(0o1777)  # as /tmp is
    assert load_signer(chain.certificate, chain.key) is not None


def test_full_disk_leaves_no_key(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def third(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", third)
    with pytest.raises(SidecarError, match="No space left"):
        new_chain(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 51, "a\nb"])
def test_names_that_no_certificate_holds(tmp_path, name):
    with pytest.raises(InputError, match="50 printable"):
        new_chain(tmp_path / "a", name=name)
    assert not (tmp_path / "a").exists()


def test_no_key_is_no_signer(home):
    assert load_signer() is None


def test_signer_from_paths_environment_and_settings_in_this_order(home, made, monkeypatch):
    folder = config_folder()
    folder.mkdir(parents=True)
    settings = {module.CERTIFICATE: str(made.certificate), module.KEY: str(made.key), "other": 1}
    (folder / "settings.json").write_text(json.dumps(settings))
    signer = load_signer()
    assert signer is not None and signer.algorithm == "es256"
    monkeypatch.setenv(module.CERTIFICATE, "absent-cert")
    monkeypatch.setenv(module.KEY, str(made.key))
    with pytest.raises(SidecarError, match="absent-cert"):
        load_signer()
    assert load_signer(made.certificate, made.key) is not None
    with pytest.raises(InputError, match="arguments name only one"):
        load_signer(made.certificate)
    monkeypatch.delenv(module.KEY)
    with pytest.raises(InputError, match="environment names only one"):
        load_signer()


TWICE = '{"a": 1, "a": 2}'
DEEP = ("[" * 100_000, "[" * 40 + "]" * 40)


@pytest.mark.parametrize("text", ["{", "[]", '{"CRYPTOMNESIA_C2PA_KEY": 3}', *DEEP, TWICE, "NaN", '"\\ud800"'])
def test_malformed_settings(home, text):
    config_folder().mkdir(parents=True)
    (config_folder() / "settings.json").write_text(text)
    with pytest.raises(SidecarError, match="settings"):
        load_signer()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_settings_that_are_a_pipe(home):
    config_folder().mkdir(parents=True)
    os.mkfifo(config_folder() / "settings.json")
    with pytest.raises(SidecarError, match="no regular file"):
        load_signer()


def test_paths_in_settings_are_relative_to_them(home):
    new_chain(config_folder() / "keys")
    settings = {module.CERTIFICATE: "keys/certificate.pem", module.KEY: "keys/key.pem"}
    (config_folder() / "settings.json").write_text(json.dumps(settings))
    assert load_signer() is not None


def test_config_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path))
    assert config_folder() == tmp_path / "cryptomnesia"
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_folder().parts[-2:] == (".config", "cryptomnesia")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_reach_is_refused(tmp_path, mode):
    chain = new_chain(tmp_path / "a")
    chain.key.chmod(mode)
    with pytest.raises(SidecarError, match="chmod 600"):
        load_signer(chain.certificate, chain.key)


def pem(key, encryption=None, form=serialization.PrivateFormat.PKCS8):
    return key.private_bytes(serialization.Encoding.PEM, form, encryption or serialization.NoEncryption())


@pytest.mark.parametrize("kind", ["another", "encrypted", "sec1", "cut", "none", "binary", "curve"])
def test_unusable_keys_are_never_quoted(tmp_path, kind):
    chain = new_chain(tmp_path / "a")
    own, other = chain.key.read_bytes(), ec.generate_private_key(ec.SECP256R1())
    text = {
        "another": pem(other),
        "encrypted": pem(other, serialization.BestAvailableEncryption(b"secret")),
        "sec1": pem(other, form=serialization.PrivateFormat.TraditionalOpenSSL),
        "cut": own[:-60],
        "none": b"",
        "binary": b"-----BEGIN PRIVATE KEY-----\n\xff\0",
        "curve": pem(ec.generate_private_key(ec.SECP256K1())),
    }[kind]
    chain.key.write_bytes(text)
    with pytest.raises(SidecarError) as raised:
        load_signer(chain.certificate, chain.key)
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__context__)
    assert "\n" not in str(raised.value)
    for line in text.split(b"\n")[1:-1]:
        assert not line or line.startswith(b"-----") or repr(line)[2:-1] not in shown


@pytest.mark.parametrize("whole", [True, False])
def test_a_key_in_place_of_its_file_name_is_not_quoted(home, made, monkeypatch, whole):
    text = made.key.read_text()
    secret = text.splitlines()[1]
    monkeypatch.setenv(module.CERTIFICATE, str(made.certificate))
    monkeypatch.setenv(module.KEY, text if whole else secret)
    with pytest.raises(CryptomnesiaError) as raised:
        load_signer()
    assert secret not in "".join(traceback.format_exception(raised.value)) + repr(raised.value.__context__)


def files(folder, signer):
    (folder / "c.pem").write_bytes(signer.certificates)
    (folder / "k.pem").write_bytes(signer.key)
    (folder / "k.pem").chmod(0o600)
    return folder / "c.pem", folder / "k.pem"


@pytest.mark.parametrize(
    "kind",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate,
    ],
)
def test_keys_of_no_kind_that_signs_here(tmp_path, kind):
    with pytest.raises(SidecarError, match="no kind that signs here: use P-256, P-384, P-521 or Ed25519") as raised:
        load_signer(*files(tmp_path, issued(key=kind()).signer))
    assert "\n" not in str(raised.value)


def test_a_certificate_for_a_key_that_nobody_knows(tmp_path):
    signer = issued().signer
    with pytest.raises(SidecarError, match="is for a key of no kind that signs here"):
        load_signer(*files(tmp_path, replace(signer, certificates=on_no_curve(signer.certificates))))


def test_a_certificate_that_is_none(tmp_path, made):
    (tmp_path / "c.pem").write_text("hello")
    with pytest.raises(SidecarError, match="no PEM certificate"):
        load_signer(tmp_path / "c.pem", made.key)


def test_the_key_is_not_in_the_signers_text(made):
    signer = load_signer(made.certificate, made.key)
    secret = made.key.read_text().splitlines()[1]
    assert secret not in repr(signer) and secret not in str(signer) and secret not in f"{signer}"


def test_without_cryptography_one_line_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingPackage, match=r"cryptomnesia\[provenance\]"):
        new_chain(tmp_path / "a")
    assert issubclass(MissingPackage, CryptomnesiaError)


def test_no_key_where_comfyui_serves_files(tmp_path):
    (tmp_path / "folder_paths.py").touch()
    for name in ("output", "input", "temp"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="where ComfyUI shows its files"):
            new_chain(tmp_path / name / "keys")
        assert not list((tmp_path / name).iterdir())
    assert new_chain(tmp_path / "user" / "keys").key.exists()
