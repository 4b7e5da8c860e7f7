"""`cryptomnesia verify` and `cryptomnesia keys`, as their users meet them."""

import json
import os
import stat
import sys

import pytest
from cryptography import x509

from cryptomnesia.sidecar import c2pa_path, load_signer, new_chain, sidecar_path, verify

from ..helpers.commands import caller, one_line
from ..helpers.provenance import edit, saved


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    return caller(capsys)


def results(out):
    document = json.loads(out)
    assert document["schema"] == "cryptomnesia/verification/2"
    return document["results"]


def test_nobody_vouches_for_what_is_not_signed(command, tmp_path):
    code, out, err = command("verify", saved(tmp_path))
    assert (code, err) == (5, "")
    assert (
        out.startswith("– nobody vouches: matches its provenance, which nobody signed")
        and "anyone could have written" in out
    )
    assert "intact" not in out


def test_changed(command, tmp_path):
    image = saved(tmp_path)
    other = saved(tmp_path, "other.png", seed=1)
    image.write_bytes(other.read_bytes())
    code, out, _ = command("verify", image)
    assert code == 4 and out.startswith("▲ changed: does not match")


def test_missing_and_malformed_sidecars_cannot_be_judged(command, tmp_path):
    image = saved(tmp_path)
    sidecar_path(image).write_text("{}")
    code, out, _ = command("verify", image)
    assert code == 2 and out.startswith("? cannot tell")
    sidecar_path(image).unlink()
    code, out, _ = command("verify", image)
    assert code == 2 and "There is no provenance" in out


def test_several_images(command, tmp_path):
    first, second, changed = saved(tmp_path, "a.png"), saved(tmp_path, "b.png"), saved(tmp_path, "c.png", seed=1)
    assert command("verify", first, second)[0] == 5
    code, out, err = command("verify", first, "absent.png", second, "--json")
    assert code == 2
    assert [one["result"] for one in results(out)] == ["nobody vouches", "cannot tell", "nobody vouches"]
    assert "there is no image absent.png" in err and "there is no image" in results(out)[1]["error"]
    changed.write_bytes(first.read_bytes())
    assert command("verify", "absent.png", changed, first)[0] == 4


def test_sidecar_elsewhere(command, tmp_path):
    image = saved(tmp_path)
    moved = sidecar_path(image).rename(tmp_path / "moved.json")
    assert command("verify", image, "--sidecar", moved)[0] == 5
    assert "one image, not 2" in one_line(command("verify", image, image, "--sidecar", moved))


def test_json_for_machines(command, tmp_path):
    code, out, err = command("verify", saved(tmp_path), "--json")
    (found,) = results(out)
    assert (code, err, found["sidecar"], found["signature"]) == (5, "", "found", "none")
    assert (found["matches"], found["vouched"]) == (True, False)


def test_trust(command, tmp_path):
    pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "keys")
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key))
    code, out, _ = command("verify", image, "--trust", chain.root, "--json")
    assert code == 0 and results(out)[0]["signature"] == "trusted"
    assert command("verify", image, "--trust", chain.root)[1].startswith(
        "✓ vouched for: unchanged, and signed by someone you trust"
    )
    assert "there is no certificate" in one_line(command("verify", image, "--trust", "absent.pem"))
    sidecar_path(image).unlink()
    image.write_bytes(image.read_bytes() + b"x")
    assert command("verify", image)[0] == 4


def test_with_trust_a_signature_is_needed(command, tmp_path, monkeypatch):
    pytest.importorskip("c2pa")
    chain, other = new_chain(tmp_path / "keys"), new_chain(tmp_path / "other")
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key))
    code, out, _ = command("verify", image, "--trust", other.root)
    assert code == 5 and out.startswith("– nobody vouches: matches its provenance, which nobody you trust signed")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "c2pa", None)
        code, out, _ = command("verify", image, "--trust", chain.root)
        assert code == 2 and out.startswith("? cannot tell")
        assert command("verify", image)[0] == 2
    c2pa_path(image).unlink()
    assert command("verify", image)[0] == 5
    assert command("verify", image, "--trust", chain.root)[0] == 0  # the sidecar has a signature of its own
    edit(image, lambda said: None)
    code, out, _ = command("verify", image, "--trust", chain.root, "--json")
    assert code == 5 and results(out)[0]["vouched"] is False


def test_the_worst_result_decides(command, tmp_path):
    pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "keys")
    signer, trust = load_signer(chain.certificate, chain.key), ("--trust", chain.root)
    (tmp_path / "map.npy").write_text("a map")
    good = saved(tmp_path, "good.png", c2pa=signer, evidence=[("map", tmp_path / "map.npy")])
    unsigned, changed = saved(tmp_path, "plain.png"), saved(tmp_path, "changed.png", c2pa=signer)
    changed.write_bytes(unsigned.read_bytes() + b"x")
    assert command("verify", good, *trust)[0] == 0
    assert command("verify", good, unsigned, *trust)[0] == 5
    assert command("verify", good, unsigned, "absent.png", *trust)[0] == 2
    assert command("verify", changed, unsigned, "absent.png", good, *trust)[0] == 4
    (tmp_path / "map.npy").unlink()
    code, out, _ = command("verify", good, *trust)
    assert code == 5 and "but a file that belongs to it is missing" in out.splitlines()[0]
    (tmp_path / "map.npy").write_text("another map")
    code, out, _ = command("verify", good, *trust)
    assert code == 4 and out.startswith("▲ changed: evidence does not match")


@pytest.mark.parametrize("signed", [False, True])
def test_maps_beside_an_image_are_its_evidence(command, tmp_path, signed):
    if signed:
        pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "keys")
    signer = load_signer(chain.certificate, chain.key) if signed else None
    for name in ("map.png", "mask.png"):
        (tmp_path / name).write_bytes(saved(tmp_path / "keys", name, seed=3).read_bytes())
    evidence = [("heatmap", tmp_path / "map.png"), ("mask", tmp_path / "mask.png")]
    image = saved(tmp_path, "image.png", evidence=evidence, c2pa=signer)
    images, trust = (image, "map.png", "mask.png"), ("--trust", chain.root)
    code, out, err = command("verify", *images, *trust)
    assert (code, err) == (0 if signed else 5, "") and out.count("Evidence of image.png: unchanged") == 2
    if signed:
        assert out.count("✓ vouched for") == 3 and command("verify", *images)[0] == 5
    (tmp_path / "map.png").write_bytes(b"another")
    code, out, _ = command("verify", "map.png", *trust)
    assert code == 4 and "Evidence of image.png: not the one" in out
    assert command("verify", "mask.png", *trust)[0] == (0 if signed else 5)
    other = tmp_path / "other.png"
    other.write_bytes(image.read_bytes())
    assert command("verify", other, *trust)[0] == 2  # that no sidecar names


@pytest.mark.skipif(os.name == "nt", reason="such names are for others")
def test_names_play_no_tricks_on_a_terminal(command, tmp_path):
    image = saved(tmp_path, "x.png\n✓ intact  \x1b[2J\u202ereal.png")
    code, out, _ = command("verify", image)
    assert code == 5 and not any(line.startswith("✓") for line in out.splitlines())
    assert "\x1b" not in out and "\u202e" not in out
    sidecar_path(image).unlink()
    sidecar_path(image).mkdir()
    assert all(line.isprintable() for line in verify(image).lines)
    (tmp_path / "a\n✓ intact  b.png").symlink_to("round")
    (tmp_path / "round").symlink_to("round")
    _, out, err = command("verify", tmp_path / "a\n✓ intact  b.png")
    assert out == "" and len(err.splitlines()) == 1


def test_no_arguments(command):
    assert "see `cryptomnesia verify --help`" in one_line(command("verify"))


def test_new_keys_say_how_to_use_them(command, tmp_path):
    code, out, err = command("keys", "new")
    assert (code, err) == (0, "")
    folder = tmp_path / "config" / "cryptomnesia" / "keys"
    assert sorted(path.name for path in folder.iterdir()) == ["certificate.pem", "key.pem", "root.pem"]
    assert "PRIVATE" not in out and str(folder / "key.pem") in out and "settings.json" in out
    settings = next(line for line in out.splitlines() if line.strip().startswith("{"))
    (folder.parent / "settings.json").write_text(settings)
    assert load_signer() is not None
    if os.name == "posix":
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert "is not overwritten" in one_line(command("keys", "new"))


def test_new_keys_elsewhere(command, tmp_path):
    code, out, _ = command("keys", "new", "--out", "mine", "--name", "someone", "--json")
    assert code == 0
    assert json.loads(out)["key"] == str(tmp_path / "mine" / "key.pem")


@pytest.fixture
def signed(tmp_path):
    """signed(name, **options): an image with its provenance in it; and the root of who signed."""
    pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "keys", name="Ada")
    signer = load_signer(chain.certificate, chain.key)
    return (lambda name, **options: saved(tmp_path, name, c2pa=signer, embed=True, **options)), chain


def test_folders_are_looked_through(command, tmp_path, signed):
    make, chain = signed
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    for number in range(3):
        make(f"sub/{number}.png", seed=number)
    saved(tmp_path, "sub/plain.jpg")
    (tmp_path / "sub" / "notes.txt").write_text("no image")
    (tmp_path / "sub" / ".hidden" / "x.png").write_text("hidden")
    code, out, err = command("verify", "sub", "--trust", chain.root)
    assert (code, err) == (5, "") and out.count("✓ vouched for") == 3 and out.count("– nobody vouches") == 1
    assert out.splitlines()[-1] == "4 images: 1 nobody vouches, 3 vouched for" and len(out.splitlines()) == 5
    (tmp_path / "sub" / "broken.png").write_bytes(b"x")
    code, out, _ = command("verify", "sub", "--json")
    found = json.loads(out)
    assert code == 2 and found["summary"] == {"cannot tell": 1, "nobody vouches": 4, "complete": True}
    assert os.path.basename(found["results"][0]["image"]) == "0.png"
    (tmp_path / "none").mkdir()
    assert "holds no images" in one_line(command("verify", "none"))
    assert "one image" in one_line(command("verify", "sub", "--sidecar", "x"))


def test_a_thousand_images_of_a_folder(command, tmp_path):
    """All of them, each once; copies of few files, so that it is quick."""
    (tmp_path / "many").mkdir()
    first = saved(tmp_path)
    for number in range(1000):
        os.link(first, tmp_path / "many" / f"{number:04}.png")
    code, out, _ = command("verify", "many")
    assert code == 2 and out.splitlines()[-1] == "1000 images: 1000 cannot tell"


def test_the_store_of_the_command_and_of_the_settings(command, tmp_path, monkeypatch, signed):
    make, _ = signed
    make("a.png", store=tmp_path / "store")
    (tmp_path / "copy.png").write_bytes(saved(tmp_path, "b.png").read_bytes())
    code, out, _ = command("verify", "copy.png", "--store", "store")
    assert code == 3 and out.startswith("≈ found again by its content: it matches the record of a.png  copy.png")
    assert "by content, not by signature" in out
    monkeypatch.setenv("CRYPTOMNESIA_STORE", str(tmp_path / "store"))
    assert command("verify", "copy.png")[0] == 3
    assert "there is no store in gone" in one_line(command("verify", "copy.png", "--store", "gone"))


def test_a_page_for_people(command, tmp_path, signed):
    make, chain = signed
    image = make("<b>a&b.png")
    code, _, err = command("verify", image, "--trust", chain.root, "--html", "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert code == 0 and "the page is in page.html" in err
    assert "&lt;b&gt;a&amp;b.png" in page and "<b>a&b" not in page and "data:image/png;base64," in page
    assert "vouched for: unchanged, and signed by someone you trust" in page and "trainedAlgorithmicMedia" in page
    (tmp_path / "broken.png").write_bytes(b"x")
    assert command("verify", "broken.png", "--html", "broken.html")[0] == 2
    assert "cannot tell" in (tmp_path / "broken.html").read_text("utf-8")


def test_revoked(command, tmp_path, signed):
    make, chain = signed
    image = make("a.png")
    code, out, _ = command("keys", "show", "--json")
    assert code == 5 and json.loads(out)["signing"] == []
    certificate = x509.load_pem_x509_certificates(chain.certificate.read_bytes())[0]
    (tmp_path / "revoked").write_text(f"{certificate.serial_number}\n")
    code, out, _ = command("verify", image, "--trust", chain.root, "--revoked", "revoked")
    assert code == 5 and "signed with a certificate that is not accepted" in out and "was revoked" in out


def test_keys_tell_who_signs_who_is_trusted_and_until_when(command, tmp_path, monkeypatch, signed):
    make, chain = signed
    image = make("a.png")
    assert command("verify", image)[0] == 5
    code, out, _ = command("keys", "trust", chain.root)
    assert code == 0 and "trusted from now on" in out
    assert command("verify", image)[0] == 0
    assert "is not overwritten" in one_line(command("keys", "trust", chain.root))
    assert "no PEM certificate" in one_line(command("keys", "trust", image))
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_CERT", str(chain.certificate))
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_KEY", str(chain.key))
    code, out, _ = command("keys", "show")
    assert code == 0 and "Ada, by Ada issuer: valid until" in out and "days from now" in out and "Ada root" in out
    found = json.loads(command("keys", "show", "--json")[1])
    assert [one["name"] for one in found["signing"]] == ["Ada", "Ada issuer"]
    certificate = x509.load_pem_x509_certificates(chain.certificate.read_bytes())[0]
    assert found["signing"][0]["until"] == certificate.not_valid_after_utc.date().isoformat()
    chain.key.chmod(0o644)
    code, out, err = command("keys", "show")
    assert code == 2 and "others may read the private key" in err and "Ada root" in out
