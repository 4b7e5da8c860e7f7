"""`cryptomnesia verify` and `cryptomnesia keys`, as their users meet them."""

import json
import os
import stat
import sys

import pytest

from cryptomnesia.sidecar import c2pa_path, load_signer, new_chain, sidecar_path

from .commands import caller, one_line
from .provenance import saved


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    return caller(capsys)


def test_intact(command, tmp_path):
    code, out, err = command("verify", saved(tmp_path))
    assert (code, err) == (0, "")
    assert out.startswith("✓ intact") and "anyone could have written" in out


def test_changed(command, tmp_path):
    image = saved(tmp_path)
    other = saved(tmp_path, "other.png", seed=1)
    image.write_bytes(other.read_bytes())
    code, out, _ = command("verify", image)
    assert code == 4 and out.startswith("▲ does not match")


def test_missing_and_malformed_sidecars_cannot_be_judged(command, tmp_path):
    image = saved(tmp_path)
    sidecar_path(image).write_text("{}")
    code, out, _ = command("verify", image)
    assert code == 2 and out.startswith("? cannot be judged")
    sidecar_path(image).unlink()
    code, out, _ = command("verify", image)
    assert code == 2 and "There is no sidecar" in out


def test_several_images(command, tmp_path):
    first, second, changed = saved(tmp_path, "a.png"), saved(tmp_path, "b.png"), saved(tmp_path, "c.png", seed=1)
    assert command("verify", first, second)[0] == 0
    code, out, err = command("verify", first, "absent.png", second, "--json")
    assert code == 2 and [json.loads(line)["intact"] for line in out.splitlines()] == [True, True]
    assert "absent.png does not exist" in err
    changed.write_bytes(first.read_bytes())
    assert command("verify", "absent.png", changed, first)[0] == 4


def test_sidecar_elsewhere(command, tmp_path):
    image = saved(tmp_path)
    moved = sidecar_path(image).rename(tmp_path / "moved.json")
    assert command("verify", image, "--sidecar", moved)[0] == 0
    assert "one image, not 2" in one_line(command("verify", image, image, "--sidecar", moved))


def test_json_for_machines(command, tmp_path):
    code, out, err = command("verify", saved(tmp_path), "--json")
    found = json.loads(out)
    assert (code, err, found["sidecar"], found["signature"]) == (0, "", "found", "none")


def test_trust(command, tmp_path):
    pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "keys")
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key))
    code, out, _ = command("verify", image, "--trust", chain.root, "--json")
    assert code == 0 and json.loads(out)["signature"] == "trusted"
    assert "does not exist" in one_line(command("verify", image, "--trust", "absent.pem"))
    sidecar_path(image).unlink()
    image.write_bytes(image.read_bytes() + b"x")
    assert command("verify", image)[0] == 4


def test_with_trust_a_signature_is_needed(command, tmp_path, monkeypatch):
    pytest.importorskip("c2pa")
    chain, other = new_chain(tmp_path / "keys"), new_chain(tmp_path / "other")
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key))
    code, out, _ = command("verify", image, "--trust", other.root)
    assert code == 4 and out.startswith("▲ intact, but signed by nobody you trust")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "c2pa", None)
        code, out, _ = command("verify", image, "--trust", chain.root)
        assert code == 2 and out.startswith("? cannot be judged")
        assert command("verify", image)[0] == 0
    c2pa_path(image).unlink()
    assert command("verify", image)[0] == 0
    code, out, _ = command("verify", image, "--trust", chain.root, "--json")
    assert code == 4 and json.loads(out)["vouched"] is False


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
