"""`cryptomnesia disclose --check`: what images, workflows and settings carry of what is asked for."""

import json
from pathlib import Path

import pytest
from PIL import Image

from cryptomnesia.commands.workflows import saving_nodes
from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import Checker, Marking, load_signer, new_chain
from cryptomnesia.sidecar.disclosure import DUTIES, FIELDS, disclosure_of

from ..helpers.commands import caller, one_line
from ..helpers.provenance import pixels, saved

pytest.importorskip("c2pa")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EU, CODE, CALIFORNIA = (duty.name for duty in DUTIES)
WORKFLOWS = Path(__file__).parents[2] / "workflows"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return caller(capsys)


@pytest.fixture
def chain(tmp_path):
    return new_chain(tmp_path / "keys")


def told(command, *arguments):
    code, out, err = command("disclose", "--check", *arguments, "--json")
    document = json.loads(out)
    assert document["schema"] == "cryptomnesia/disclosure/1" and err == ""
    return code, document


def test_a_signed_and_named_image_has_all_but_a_time_stamp(command, tmp_path, chain):
    signer = load_signer(chain.certificate, chain.key)
    image = saved(tmp_path, c2pa=signer, embed=Marking(provider="Studio", training="allowed"))
    code, found = told(command, image, "--trust", chain.root)
    fields = found["results"][0]["fields"]
    assert list(fields) == list(FIELDS)
    assert [name for name, one in fields.items() if not one["valid"]] == ["time-stamp"]
    assert {one["where"] for one in fields.values()} == {"manifest", None}
    assert fields["provider"]["value"] == "Studio" and code == 4
    assert found["missing"] == {EU: [], CODE: ["time-stamp"], CALIFORNIA: []}
    code, found = told(command, image)
    assert found["missing"][CODE] == ["time-stamp", "trusted signer"]


def test_without_a_key_the_metadata_tell(command, tmp_path):
    image = saved(tmp_path, embed=Marking(provider="Studio"))
    _, found = told(command, image)
    fields = found["results"][0]["fields"]
    valid = [name for name, one in fields.items() if one["valid"]]
    assert valid == ["AI-made", "provider", "system", "system version", "time", "content id", "image code"]
    assert {fields[name]["where"] for name in valid} == {"XMP"}
    assert found["missing"][CALIFORNIA] == [] and "signed manifest" in found["missing"][CODE]


def test_what_lies_only_beside_the_image_does_not_count(command, tmp_path):
    from cryptomnesia.containers import one_picture

    image = saved(tmp_path, embed=Marking(provider="Studio"))
    image.write_bytes(one_picture(image.read_bytes()))  # the metadata are stripped
    with Checker() as checker:
        found = {field.name: field for field in disclosure_of(image, checker).fields}
    assert found["provider"].where == "sidecar" and not found["provider"].valid
    assert "only beside the image" in found["provider"].note


def test_a_broken_manifest_is_there_and_not_valid(command, tmp_path, chain):
    image = saved(tmp_path, c2pa=load_signer(chain.certificate, chain.key), embed=True)
    data = bytearray(image.read_bytes())
    data[-20] ^= 1
    image.write_bytes(bytes(data))
    _, found = told(command, image)
    one = found["results"][0]["fields"]["signed manifest"]
    assert one["value"] is not None and not one["valid"] and one["note"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Iptc4xmpExt:DigitalSourceType", "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"),
        ("Iptc4xmpExt:DigImageGUID", "7"),
        ("xmp:CreateDate", "yesterday"),
    ],
)
def test_fields_must_say_what_they_should(tmp_path, name, value):
    from cryptomnesia.sidecar.packets import with_packet
    from cryptomnesia.sidecar.xmp import packet

    Image.fromarray(pixels()).save(tmp_path / "a.png")
    data = with_packet((tmp_path / "a.png").read_bytes(), packet({name: value}), (8, 8))
    (tmp_path / "a.png").write_bytes(data)
    with Checker() as checker:
        (field,) = [one for one in disclosure_of(tmp_path / "a.png", checker).fields if one.value == value]
    assert not field.valid and field.note


def test_a_folder_is_one_table(command, tmp_path):
    (tmp_path / "images").mkdir()
    saved(tmp_path / "images", "a.png", embed=Marking(provider="Studio"))
    Image.fromarray(pixels()).save(tmp_path / "images" / "b.jpg")
    code, out, err = command("disclose", "--check", "images")
    assert code == 4 and err == ""
    line = next(line for line in out.splitlines() if line.startswith("provider"))
    assert line.split()[1:7] == ["1", "of", "2", "1", "of", "2"] and "Studio" in line
    assert f"▲ {EU}: missing: AI-made" in out and "no legal advice" in out
    (tmp_path / "images" / "c.png").mkdir()
    (tmp_path / "empty").mkdir()
    assert "holds no images" in one_line(command("disclose", "--check", "empty"))
    assert "no image" in one_line(command("disclose", "--check", "gone.png"))


def test_a_pipelines_folder_tells_what_todays_settings_do(command, tmp_path, chain, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    code, found = told(command, "model")
    assert code == 4 and found["missing"][EU] == [] and found["missing"][CALIFORNIA] == ["provider"]
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_CERT", str(chain.certificate))
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_KEY", str(chain.key))
    monkeypatch.setenv("CRYPTOMNESIA_PROVIDER", "Studio")
    command("keys", "trust", chain.root)
    _, found = told(command, "model")
    assert found["missing"] == {EU: [], CODE: ["time-stamp"], CALIFORNIA: []}
    assert "model" in found["results"][0]["fields"]["system"]["value"]


def queued(**inputs):
    return {"9": {"class_type": "CryptomnesiaSaveImage", "inputs": {"images": ["8", 0], **inputs}}}


def edited(*values):
    return {"nodes": [{"id": 1, "type": "CryptomnesiaSaveImage", "widgets_values": list(values)}]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (queued(embed=True), [(True, True)]),
        (queued(), [(True, False)]),
        ({"prompt": queued(embed=True)}, [(True, True)]),
        ({"9": {"class_type": "SaveImage", "inputs": {}}}, [(False, False)]),
        ({"nodes": [{"id": 1, "type": "SaveImage"}, {"id": 2, "type": "SaveImage", "mode": 4}]}, [(False, False)]),
        (
            {"nodes": [{"id": 1, "type": "CryptomnesiaSaveImage", "widgets_values": ["x", "plain", False, True]}]},
            [(True, True)],
        ),
        (
            {"nodes": [{"id": 1, "type": "CryptomnesiaSaveImage", "widgets_values": ["x", "plain", False]}]},
            [(True, False)],
        ),
        ({"nodes": [], "definitions": {"subgraphs": [{"nodes": [{"id": 3, "type": "SaveImage"}]}]}}, [(False, False)]),
        ({"nodes": []}, []),
    ],
)
def test_workflows(tmp_path, document, expected):
    (tmp_path / "w.json").write_text(json.dumps(document))
    found = saving_nodes(tmp_path / "w.json", 1 << 20)
    assert [(one.provenance, one.embeds) for one in found] == expected


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"a": 1}', '{"nodes": 3}'])
def test_what_is_no_workflow(command, tmp_path, text):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(InputError):
        saving_nodes(tmp_path / "w.json", 1 << 20)
    one_line(command("disclose", "--check", "w.json"))


def test_the_packs_own_workflow_embeds(command, tmp_path):
    path = WORKFLOWS / "Save an image with its provenance.json"
    _, found = told(command, path)
    assert found["notes"] == [] and found["missing"][EU] == []
    document = json.loads(path.read_text("utf-8"))
    (node,) = [one for one in document["nodes"] if one["type"] == "CryptomnesiaSaveImage"]
    node["widgets_values"][-1] = False
    (tmp_path / "w.json").write_text(json.dumps(document))
    code, out, _ = command("disclose", "--check", tmp_path / "w.json")
    assert code == 4 and "switch `embed` on" in out
