"""A folder of evidence under one statement: what changed, what is missing, and who vouches for it."""

import base64
import json
from pathlib import Path

import pytest

from cryptomnesia.errors import InputError, SidecarError
from cryptomnesia.sidecar import Checker, load_signer, new_chain, verify_bundle, write_bundle

ABOUT = {"title": "two files"}


@pytest.fixture
def evidence(tmp_path):
    """Two files in a folder, one of them in a folder below."""
    (tmp_path / "found").mkdir()
    files = [tmp_path / "report.json", tmp_path / "found" / "01.png"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 9)
    return tmp_path, files


def result(path: Path, **options):
    with Checker(**options) as checker:
        return verify_bundle(path, checker)


def test_a_bundle_names_its_files_by_digest_and_nobody_vouches_without_a_key(evidence):
    folder, files = evidence
    path = write_bundle(folder / "x.bundle.json", files, ABOUT)
    document = json.loads(path.read_text())
    assert [one["name"] for one in document["subject"]] == ["found/01.png", "report.json"]
    found = result(path)
    assert found.result == "nobody vouches" and {state for _, state in found.evidence} == {"same"}
    assert "anyone could have written" in " ".join(found.lines) and "two files" in found.lines[0]


def test_every_change_shows(evidence):
    folder, files = evidence
    path = write_bundle(folder / "x.bundle.json", files, ABOUT)
    files[1].write_bytes(b"other")
    assert result(path).result == "changed"
    files[1].unlink()
    missing = result(path)
    assert missing.result == "nobody vouches" and dict(missing.evidence)["found/01.png"] == "missing"


def test_a_signed_bundle_is_vouched_for_by_whom_one_trusts_alone(evidence, tmp_path_factory):
    folder, files = evidence
    keys = tmp_path_factory.mktemp("keys")
    keys.chmod(0o700)
    chain = new_chain(keys / "k", name="Ada")
    signer = load_signer(chain.certificate, chain.key)
    path = write_bundle(folder / "x.bundle.json", files, ABOUT, signer)
    assert result(path).result == "nobody vouches"
    assert result(path, trust=[chain.root]).result == "vouched for"
    envelope = json.loads(path.read_text())
    statement = base64.b64decode(envelope["payload"]).replace(b"two files", b"ten files")
    path.write_text(json.dumps(envelope | {"payload": base64.b64encode(statement).decode()}))
    assert result(path, trust=[chain.root]).result == "changed"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "a\\b", "", ".hidden", "a/b/c/d/e", "nul", "./a", "a//b"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(evidence, name):
    folder, files = evidence
    path = write_bundle(folder / "x.bundle.json", files, ABOUT)
    document = json.loads(path.read_text())
    document["subject"][0]["name"] = name
    path.write_text(json.dumps(document))
    assert result(path).result == "cannot tell"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"payload": 1, "signatures": []}', '{"_type": "x"}'])
def test_what_is_no_bundle_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "x.bundle.json"
    path.write_text(text)
    found = result(path)
    assert found.result == "cannot tell" and len(found.lines) == 1


def test_files_elsewhere_and_no_files_are_refused(evidence, tmp_path_factory):
    folder, _ = evidence
    other = tmp_path_factory.mktemp("other") / "a.png"
    other.write_bytes(b"x")
    for files in ([other], [folder / "found" / ".." / ".." / other.parent.name / "a.png"], []):
        with pytest.raises(SidecarError):
            write_bundle(folder / "x.bundle.json", files, ABOUT)
    assert not (folder / "x.bundle.json").exists()
    with pytest.raises(InputError), Checker() as checker:
        verify_bundle(folder / "none.bundle.json", checker)
