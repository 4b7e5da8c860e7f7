"""Save Image with Provenance with its switch on: what lies in the image, and from which one it was made."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cryptomnesia.sidecar import new_chain, read_statement, save, sidecar_path, verify
from cryptomnesia.sidecar.keys import CERTIFICATE, KEY

from ..helpers.provenance import GENERATION, pixels
from .graphs import complaint, given, ours, part, ran
from .harness import Comfy
from .results import node

c2pa = pytest.importorskip("c2pa")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = new_chain(tmp_path / "keys")
    monkeypatch.setenv(CERTIFICATE, str(made.certificate))
    monkeypatch.setenv(KEY, str(made.key))
    return made


def saving(comfy: Comfy, **changes: Any) -> dict[str, Any]:
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(3))
    prompt = {"images": given(comfy, images)}
    return prompt | {"save": ours(comfy, "SaveImage", images=["images", 0], filename_prefix="made", **changes)}


def test_a_signed_manifest_lies_in_every_image(comfy: Comfy, output: Path, chain: Any):
    result = ran(comfy, saving(comfy, embed=True))
    for number in (1, 2):
        image = output / f"made_0000{number}_.png"
        assert verify(image, trust=[chain.root]).result == "vouched for"
        sidecar_path(image).unlink()
        assert verify(image, trust=[chain.root]).vouched and Image.open(image).info["prompt"]
    assert "in it: a signed manifest" in result.ui["save"]["text"][0]


def test_without_a_key_it_says_so(comfy: Comfy, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    result = ran(comfy, saving(comfy, embed=True))
    assert "XMP without a signature, since there is no key" in result.ui["save"]["text"][0]
    assert verify(output / "made_00001_.png").result == "nobody vouches"


def test_settings_that_cannot_be_used_cost_no_image(comfy: Comfy, output: Path, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "cryptomnesia").mkdir(parents=True)
    (tmp_path / "config" / "cryptomnesia" / "settings.json").write_text("{")
    assert "settings" in complaint(comfy, saving(comfy, embed=True))
    assert {path.name for path in output.glob("*.png")} == {"made_00001_.png", "made_00002_.png"}


def test_the_image_that_it_was_made_from_is_its_parent(comfy: Comfy, output: Path, chain: Any):
    place = Path(comfy.folder_paths.get_input_directory())
    save(pixels(), place / "mine.png", None, GENERATION, embed=True)
    save(pixels(1), place / "pose.png", None, GENERATION, embed=True)
    graph = {
        "load": node("LoadImage", image="mine.png"),
        "pose": node("LoadImage", image="pose.png"),
        "encode": node("VAEEncode", pixels=["load", 0], vae=["model", 2]),
        "text": node("CLIPTextEncode", text="a cat", clip=["model", 1]),
        "control": node("ControlNetApply", conditioning=["text", 0], image=["pose", 0], control_net=["net", 0]),
        "sampler": node("KSampler", latent_image=["encode", 0], positive=["control", 0], seed=1),
        "decode": node("VAEDecode", samples=["sampler", 0]),
        "save": node("CryptomnesiaSaveImage", images=["decode", 0]),
    }
    marking = part(comfy, "nodes.parents").marking_of(graph, "save")
    assert marking.parent == place / "mine.png" and not marking.inpainted
    graph["encode"] = node("VAEEncodeForInpaint", pixels=["load", 0], mask=["load", 1])
    assert part(comfy, "nodes.parents").marking_of(graph, "save").inpainted
    graph["load"] = node("LoadImage", image="gone.png")
    assert part(comfy, "nodes.parents").marking_of(graph, "save").parent is None
    graph["decode"] = node("ImageBatch", image1=["load", 0], image2=["pose", 0])
    assert part(comfy, "nodes.parents").marking_of(graph, "save").parent is None  # two


def test_the_parents_manifest_is_kept(comfy: Comfy, output: Path, chain: Any):
    place = Path(comfy.folder_paths.get_input_directory())
    save(pixels(), place / "mine.png", None, GENERATION, embed=True)
    prompt = {"load": node("LoadImage", image="mine.png"), "flip": node("ImageInvert", image=["load", 0])}
    prompt["save"] = ours(comfy, "SaveImage", images=["flip", 0], filename_prefix="made", embed=True)
    ran(comfy, prompt)
    data = (output / "made_00001_.png").read_bytes()
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        found = json.loads(reader.json())
    active = found["manifests"][found["active_manifest"]]
    assert [one["title"] for one in active["ingredients"] if one["relationship"] == "parentOf"] == ["mine.png"]
    assert len(found["manifests"]) == 2
    marking = read_statement(sidecar_path(output / "made_00001_.png"))["predicate"]["marking"]
    assert marking["parent"] == "mine.png"
