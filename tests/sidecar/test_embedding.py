"""Provenance in the image's own file: what is in it, that it validates, and that no pixel and no image is lost."""

import base64
import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cryptomnesia.containers import media_type
from cryptomnesia.errors import InputError, SidecarError, UnsignedWarning
from cryptomnesia.image_codes import image_code, unit
from cryptomnesia.prompts.recorded import recorded_prompt
from cryptomnesia.sidecar import Marking, c2pa_path, load_signer, new_chain, save, sidecar_path, verify, write_sidecar
from cryptomnesia.sidecar.keys import CERTIFICATE, KEY
from cryptomnesia.sidecar.marking import PROVIDER, TRAINING

from ..helpers.provenance import GENERATION, PROMPT, REPORT, REWRITTEN, document, edit, pixels, saved

c2pa = pytest.importorskip("c2pa")
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FORMATS = ["a.png", "a.jpg", "a.webp"]
STUDIO = Marking(provider="Studio", training="notAllowed")


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return new_chain(tmp_path_factory.mktemp("keys") / "mine", name="someone")


@pytest.fixture(scope="module")
def signer(chain):
    return load_signer(chain.certificate, chain.key)


def manifests(image: Path) -> tuple[str, dict, dict]:
    """State, active manifest and all of them, as C2PA's own reader gives them from the bytes of the file."""
    data = image.read_bytes()
    with c2pa.Reader(media_type(data), io.BytesIO(data)) as reader:
        found = json.loads(reader.json())
        return reader.get_validation_state(), found["manifests"][found["active_manifest"]], found["manifests"]


def assertions(image: Path) -> dict:
    return {one["label"]: one["data"] for one in manifests(image)[1]["assertions"]}


def packet(image: Path) -> bytes:
    """The XMP as Pillow finds it."""
    with Image.open(image) as picture:
        found = picture.info.get("XML:com.adobe.xmp") or picture.info["xmp"]
    return found.encode() if isinstance(found, str) else found


def told(image: Path) -> dict:
    """The IPTC terms of the XMP, read by nothing of this library."""
    root = ElementTree.fromstring(packet(image))
    return {one.tag.removeprefix(IPTC): one.text for one in root.iter() if one.tag.startswith(IPTC)}


@pytest.mark.parametrize("name", FORMATS)
def test_the_file_alone_tells_and_vouches(tmp_path, signer, chain, name):
    image = saved(tmp_path, name, report=REWRITTEN, c2pa=signer, embed=STUDIO)
    (tmp_path / "plain").mkdir()
    plain = saved(tmp_path / "plain", name, report=REWRITTEN)
    with Image.open(image) as one, Image.open(plain) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert verify(image, trust=[chain.root]).result == "vouched for"
    sidecar_path(image).unlink()
    found = verify(image, trust=[chain.root])
    assert (found.result, found.embedded, found.file, found.pixels) == ("vouched for", "manifest", "same", "same")
    assert found.claims["rewritten"] and found.signer == "someone" and not c2pa_path(image).exists()
    assert verify(image).result == "nobody vouches"
    assert manifests(image)[0] == "Valid" and 3_000 < image.stat().st_size - plain.stat().st_size < 34_000


def test_every_assertion_that_is_asked_for(tmp_path, signer):
    image = saved(tmp_path, report=REWRITTEN, c2pa=signer, embed=STUDIO)
    found = assertions(image)
    (action,) = found["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", GENERATED)
    assert action["softwareAgent"] == {"name": "ComfyUI, some-model.safetensors", "version": "0.30.0"}
    assert len(action["parameters"]["ingredients"]) == 2
    disclosed = found["c2pa.ai-disclosure"]
    assert (disclosed["modelType"], disclosed["modelName"]) == ("c2pa.types.model", "some-model.safetensors")
    assert disclosed["modelIdentifier"] == "sha256:" + "a" * 64
    assert {one["use"] for one in found["cawg.training-mining"]["entries"].values()} == {"notAllowed"}
    assert found["cawg.metadata"]["Iptc4xmpExt:AIPromptInformation"] == "the quiet beacon of grimsby"
    predicate = document(image)["predicate"]
    assert found["org.cryptomnesia.predicate"]["predicate"] == predicate
    (block,) = found["c2pa.soft-binding"]["blocks"]
    assert found["c2pa.soft-binding"]["alg"] == "io.iscc.v0"
    assert base64.b64decode(block["value"]) == unit(image_code(Image.fromarray(pixels())))
    models = [one for one in manifests(image)[1]["ingredients"] if one["relationship"] == "inputTo"]
    assert [one["title"] for one in models] == ["some-model.safetensors", "some-lora"]
    assert "sha256:" + "a" * 64 in models[0]["description"] and "strength 0.8" in models[1]["description"]
    assert not [label for label in found if "thumbnail" in label]


def test_a_models_identifier_of_a_registry_is_told(tmp_path, signer):
    from dataclasses import replace

    uri = "urn:air:sdxl:checkpoint:civitai:101055@128078"
    generation = replace(GENERATION, models=[{"role": "model", "name": "m", "uri": uri}])
    image = saved(tmp_path, c2pa=signer, embed=True, generation=generation)
    assert assertions(image)["c2pa.ai-disclosure"]["modelIdentifier"] == uri
    assert document(image)["predicate"]["models"][0]["uri"] == uri
    assert uri in json.dumps(manifests(image)[1]["ingredients"])


@pytest.mark.parametrize("name", FORMATS)
def test_xmp_holds_iptcs_terms(tmp_path, signer, name):
    image = saved(tmp_path, name, c2pa=signer, embed=STUDIO)
    said = told(image)
    assert said["DigitalSourceType"] == GENERATED and said["AIPromptInformation"] == PROMPT
    assert (said["AISystemUsed"], said["AISystemVersionUsed"]) == ("ComfyUI, some-model.safetensors", "0.30.0")
    marking = document(image)["predicate"]["marking"]
    assert said["DigImageGUID"] == marking["content_id"] == manifests(image)[1]["instance_id"]
    assert b"DMI-PROHIBITED-AIMLTRAINING" in packet(image) and b"Studio" in packet(image)


@pytest.mark.parametrize("prompts", ["hash", "none"])
@pytest.mark.parametrize("name", FORMATS)
def test_hidden_prompts_are_nowhere_in_the_file(tmp_path, signer, prompts, name):
    marking = Marking(parameters=True)
    image = saved(tmp_path, name, report=REWRITTEN, prompts=prompts, c2pa=signer, embed=marking, store=tmp_path / "s")
    for path in (image, sidecar_path(image), tmp_path / "s" / "provenance.sqlite"):
        data = path.read_bytes()
        for word in ("beacon", "grimsby", "harbour"):
            assert word.encode() not in data and word.encode("utf-16-be") not in data
    assert "beacon" not in json.dumps(document(image)) and "AIPromptInformation" not in told(image)


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_key_there_is_xmp_and_that_is_said(tmp_path, name):
    with pytest.warns(UnsignedWarning, match=r"without a signature.*keys new"):
        image = saved(tmp_path, name, embed=STUDIO)
    assert told(image)["DigitalSourceType"] == GENERATED
    assert verify(image).result == "nobody vouches"
    sidecar_path(image).unlink()
    found = verify(image)
    assert (found.result, found.embedded, found.pixels) == ("nobody vouches", "xmp", "same")
    assert found.fields["provider"] == "Studio" and "They are not signed" in " ".join(found.lines)
    with Image.open(image) as picture:
        changed, text = np.array(picture), packet(image)
    changed[2, 3] ^= 255
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text.decode())
    Image.fromarray(changed).save(tmp_path / "other.png", pnginfo=info)
    found = verify(tmp_path / "other.png")
    assert (found.result, found.pixels) == ("changed", "changed")


def test_a_key_of_the_settings_signs(tmp_path, chain, monkeypatch):
    monkeypatch.setenv(CERTIFICATE, str(chain.certificate))
    monkeypatch.setenv(KEY, str(chain.key))
    monkeypatch.setenv(PROVIDER, "Another studio")
    monkeypatch.setenv(TRAINING, "allowed")
    image = saved(tmp_path, embed=True)
    found = verify(image, trust=[chain.root])
    assert found.result == "vouched for"
    assert (found.fields["provider"], found.fields["training"]) == ("Another studio", "allowed")
    with pytest.warns(UnsignedWarning):
        assert verify(saved(tmp_path, "b.png", embed=True, c2pa=False)).signature == "none"


def test_xmp_after_signing_breaks_the_signature(tmp_path, signer, chain):
    from cryptomnesia.sidecar.packets import with_packet

    image = saved(tmp_path, c2pa=signer, embed=True)
    image.write_bytes(with_packet(image.read_bytes(), packet(image) + b" ", (8, 8)))
    found = verify(image, trust=[chain.root])
    assert (found.result, found.signature) == ("changed", "invalid") and "other bytes" in " ".join(found.lines)


@pytest.mark.parametrize("inpainted", [False, True])
def test_a_parent_keeps_its_manifest(tmp_path, signer, inpainted):
    parent = saved(tmp_path, "parent.png", c2pa=signer, embed=True)
    image = saved(tmp_path, "child.webp", seed=1, c2pa=signer, embed=Marking(parent=parent, inpainted=inpainted))
    state, active, every = manifests(image)
    assert state == "Valid" and len(every) == 2
    (kept,) = [one for one in active["ingredients"] if one["relationship"] == "parentOf"]
    assert kept["title"] == "parent.png" and kept["active_manifest"] in every
    opened, edited = assertions(image)["c2pa.actions.v2"]["actions"]
    kind = "compositeWithTrainedAlgorithmicMedia" if inpainted else "trainedAlgorithmicMedia"
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"].endswith(f"/{kind}")
    assert "It was made from parent.png, as it says." in verify(image).lines


def test_parents_without_and_with_broken_manifests(tmp_path, signer):
    Image.fromarray(pixels(3)).save(tmp_path / "plain.png")
    broken = saved(tmp_path, "broken.jpg", c2pa=signer, embed=True)
    data = bytearray(broken.read_bytes())
    data[-20] ^= 0x55
    broken.write_bytes(bytes(data))
    for name in ("plain.png", "broken.jpg"):
        image = saved(tmp_path, "child.png", seed=1, c2pa=signer, embed=Marking(parent=tmp_path / name))
        assert manifests(image)[0] == "Valid" and manifests(image)[1]["ingredients"][0]["title"] == name
        assert verify(image).result == "nobody vouches"  # its own signature is good


def test_marking_again_keeps_the_former_manifest_as_parent(tmp_path, signer):
    image = saved(tmp_path, c2pa=signer, embed=True)
    before = document(image)["predicate"]["marking"]["content_id"]
    write_sidecar(image, None, GENERATION, c2pa=signer, embed=True)
    state, active, every = manifests(image)
    assert state == "Valid" and len(every) == 2 and before in {one["instance_id"] for one in every.values()}
    assert [one["relationship"] for one in active["ingredients"]].count("parentOf") == 1
    assert packet(image).count(b"AISystemUsed>") == 2  # one element
    with pytest.raises(SidecarError, match="has a manifest, which stays as it is"):
        write_sidecar(image, None, GENERATION, embed=True)
    assert manifests(image)[0] == "Valid"


def test_a_foreign_manifest_is_told(tmp_path, signer, chain):
    from cryptomnesia.sidecar.signing import _signed_by

    Image.fromarray(pixels()).save(tmp_path / "a.png")
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": GENERATED}]}
    definition = {"claim_generator_info": [{"name": "other\x1b[2J", "version": "3"}], "title": "x"}
    definition["assertions"] = [{"label": "c2pa.actions", "data": actions}]
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(_signed_by(signer, definition, (), data, "image/png", None, inside=True)[0])
    found = verify(tmp_path / "a.png", trust=[chain.root])
    assert found.result == "vouched for" and found.claims is None
    line = found.lines[-1]
    assert "written by other" in line and "source type trainedAlgorithmicMedia" in line and line.isprintable()
    write_sidecar(tmp_path / "a.png", None, GENERATION)  # of which that signature says nothing
    assert verify(tmp_path / "a.png", trust=[chain.root]).result == "nobody vouches"
    (tmp_path / "a.png").write_bytes(data)
    assert verify(tmp_path / "a.png").result == "changed"


def test_an_edited_sidecar_beside_a_signed_file_is_found(tmp_path, signer, chain):
    image = saved(tmp_path, c2pa=signer, embed=True)
    edit(image, lambda said: said["predicate"].update(seed="1"))
    found = verify(image, trust=[chain.root])
    assert (found.result, found.agreement) == ("changed", "differs") and "edited" in " ".join(found.lines)


def test_evidence_counts_without_a_sidecar(tmp_path, signer, chain):
    (tmp_path / "map.npy").write_text("a map")
    image = saved(tmp_path, c2pa=signer, embed=True, evidence=[("map", tmp_path / "map.npy")])
    sidecar_path(image).unlink()
    assert verify(image, trust=[chain.root]).result == "vouched for"
    (tmp_path / "map.npy").write_text("another")
    assert verify(image, trust=[chain.root]).result == "changed"
    (tmp_path / "map.npy").unlink()
    assert verify(image, trust=[chain.root]).result == "nobody vouches"


@pytest.mark.parametrize("name", FORMATS)
def test_a1111s_text(tmp_path, signer, name):
    generation = GENERATION
    image = saved(tmp_path, name, c2pa=signer, embed=Marking(parameters=True), generation=generation)
    sidecar_path(image).unlink()
    shutil.move(image, tmp_path / f"moved{image.suffix}")
    assert recorded_prompt(tmp_path / f"moved{image.suffix}") == PROMPT
    with Image.open(tmp_path / f"moved{image.suffix}") as picture:
        exif = picture.getexif().get_ifd(0x8769).get(0x9286)
        text = picture.info.get("parameters") or bytes(exif)[8:].decode("utf-16-be")
    assert text.splitlines()[1] == "Negative prompt: blurred harbour"
    assert "Steps: 20, Sampler: euler, CFG scale: 7.0, Seed: 18446744073709551615, Size: 8x8" in text
    assert "Model hash: aaaaaaaaaa, Model: some-model.safetensors" in text


def picture(mode: str) -> Image.Image:
    levels = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    if mode == "I;16":
        return Image.fromarray(levels)
    colour = Image.fromarray(np.stack([levels >> 8, levels.T.reshape(48, 64) >> 8, levels >> 9], 2).astype(np.uint8))
    if mode == "P and transparent":
        made = colour.quantize(16)
        made.info["transparency"] = 3
        return made
    return colour.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P and transparent", "RGBA", "I;16", "CMYK"])
def test_uncommon_images(tmp_path, signer, chain, mode):
    for name in FORMATS:
        given = picture(mode)
        image = tmp_path / name
        try:
            save(given, image, REPORT, GENERATION, c2pa=signer, embed=True, store=tmp_path / "store")
        except InputError as error:
            assert "\n" not in str(error) and not image.exists() and mode in ("CMYK", "I;16", "1", "LA")
            continue
        assert verify(image, trust=[chain.root]).result == "vouched for"
        found = verify(image, trust=[chain.root], store=tmp_path / "store").found[0]
        assert (found["distance"], found["same_pixels"]) == (0, True)


def test_animated_files_are_kept_and_told(tmp_path, signer):
    frames = [Image.fromarray(pixels(number)) for number in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError, match="more than one picture"):
        write_sidecar(tmp_path / "a.png", None, GENERATION, c2pa=signer, embed=True)
    assert (tmp_path / "a.png").read_bytes() == before
    found = verify(tmp_path / "a.png")
    assert found.result == "cannot tell"


def test_users_own_xmp_is_kept(tmp_path, signer, chain):
    mine = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="mine &amp; only"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", mine, zip=True)
    image = saved(tmp_path, c2pa=signer, embed=True, options={"pnginfo": info})
    assert b"mine &amp; only" in packet(image) and told(image)["DigitalSourceType"] == GENERATED
    assert verify(image, trust=[chain.root]).result == "vouched for"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * (10 << 20), "larger than 1 MiB"),
        ("<a", "no XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares entities"),
        ("<a>\x00</a>", "no XML"),
        ("<a/>", "nothing can be added"),
    ],
)
def test_bad_xmp_costs_the_marking_not_the_image(tmp_path, signer, text, reason):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text, zip=len(text) > 100)
    with pytest.raises(SidecarError, match=rf"was saved, .*{reason}"):
        saved(tmp_path, embed=True, options={"pnginfo": info})
    image = tmp_path / "image.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(_bare(image)))), pixels()) and verify(image).matches
    sidecar_path(image).unlink()
    found = verify(image)
    assert found.result == "cannot tell" and all(len(line) < 600 for line in found.lines)


def _bare(image: Path) -> bytes:
    from cryptomnesia.containers import one_picture

    return one_picture(image.read_bytes())


def test_a_prompt_too_long_for_a_jpegs_xmp_is_told(tmp_path, signer):
    from dataclasses import replace

    generation = replace(GENERATION, prompt="a cat " * 20_000)
    with pytest.raises(SidecarError, match="too large for a JPEG"):
        saved(tmp_path, "a.jpg", c2pa=signer, embed=True, generation=generation)
    assert verify(tmp_path / "a.jpg").matches


def test_a_key_that_cannot_sign_costs_one_line(tmp_path, chain, signer):
    from cryptomnesia.sidecar import Signer

    with pytest.raises(SidecarError, match=r"was saved, .*without a signature: .*cannot be signed") as raised:
        saved(tmp_path, c2pa=Signer(chain.root.read_bytes(), "es256", signer.key), embed=True)
    assert "PRIVATE" not in str(raised.value) and "\n" not in str(raised.value)
    assert told(tmp_path / "image.png")["DigitalSourceType"] == GENERATED


@pytest.mark.parametrize("full", [0, 1, 2])
def test_a_full_disk_leaves_no_half_file(tmp_path, signer, monkeypatch, full):
    """The write of that number fails: the image, the marked image, the sidecar."""
    import errno

    from cryptomnesia import files

    written, real = [], files.create

    def create(path, data, mode):
        written.append(path)
        if len(written) - 1 == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(files, "create", create)
    with pytest.raises(SidecarError, match="free some space"):
        saved(tmp_path, c2pa=signer, embed=True)
    monkeypatch.undo()
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "config")
    assert names == [[], ["image.png", "image.png.cryptomnesia.json"], ["image.png"]][full]
    if full:
        with Image.open(tmp_path / "image.png") as kept:
            assert np.array_equal(np.asarray(kept), pixels())


@pytest.mark.parametrize(
    "values",
    [
        {"provider": " "},
        {"provider": "a\nb"},
        {"system": "x" * 500},
        {"training": "perhaps"},
        {"inpainted": True},
        {"time_authority": "ftp://x/"},
        {"time_authority": "http://me:secret@x/"},
        {"time_authority": "x"},
    ],
)
def test_markings_that_cannot_be(values):
    with pytest.raises(InputError) as raised:
        Marking(**values)
    assert "secret" not in str(raised.value)


def test_what_embed_may_be(tmp_path):
    with pytest.raises(InputError, match="True, False or a Marking"):
        saved(tmp_path, embed="yes")
    assert not (tmp_path / "image.png").exists()
    parent = Marking(parent=tmp_path / "gone.png")
    with pytest.raises(SidecarError, match=r"was saved, .*no parent image"):
        saved(tmp_path, embed=parent)
    assert (tmp_path / "image.png").exists()


def test_avif_takes_a_manifest(tmp_path, signer, chain):
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = saved(tmp_path, "a.avif", c2pa=signer, embed=STUDIO, store=tmp_path / "store")
    assert manifests(image)[0] == "Valid" and "c2pa.ai-disclosure" in assertions(image)
    assert verify(image, trust=[chain.root]).result == "vouched for"
    sidecar_path(image).unlink()
    found = verify(image, trust=[chain.root], store=tmp_path / "store")
    assert found.result == "vouched for" and found.found[0]["same_pixels"]
    data = bytearray(image.read_bytes())
    data[-5] ^= 1
    image.write_bytes(bytes(data))
    assert verify(image, trust=[chain.root]).result == "changed"
    with pytest.raises(SidecarError, match=r"was saved, .*an AVIF takes a signed manifest only"):
        saved(tmp_path, "b.avif", embed=True)
    assert verify(tmp_path / "b.avif").matches


def test_marking_takes_away_a_signature_of_the_file_as_it_was(tmp_path, signer, chain):
    image = saved(tmp_path, c2pa=signer)
    assert c2pa_path(image).exists()
    write_sidecar(image, REPORT, GENERATION, c2pa=signer, embed=True)
    assert not c2pa_path(image).exists() and verify(image, trust=[chain.root]).result == "vouched for"


def test_settings_that_cannot_be_used_cost_the_store_not_the_sidecar(tmp_path):
    (tmp_path / "config" / "cryptomnesia").mkdir(parents=True)
    (tmp_path / "config" / "cryptomnesia" / "settings.json").write_text("{")
    with pytest.raises(SidecarError, match=r"was saved, .*not put into the store: the settings"):
        saved(tmp_path)
    assert verify(tmp_path / "image.png").matches
    assert verify(saved(tmp_path, "b.png", store=False)).matches
    with pytest.raises(SidecarError, match=r"was saved, it was not marked: the settings"):
        saved(tmp_path, "c.png", embed=True, store=False)
    assert verify(tmp_path / "c.png").matches


def test_a_parent_that_points_to_a_network_is_not_followed(tmp_path, signer):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/m.c2pa"
        info = PngImagePlugin.PngInfo()
        info.add_itxt(
            "XML:com.adobe.xmp",
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
            "</rdf:RDF></x:xmpmeta>",
        )
        Image.fromarray(pixels(3)).save(tmp_path / "parent.png", pnginfo=info)
        image = saved(tmp_path, c2pa=signer, embed=Marking(parent=tmp_path / "parent.png"))
        for path in (tmp_path / "parent.png", image):
            verify(path)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert manifests(image)[0] == "Valid"
