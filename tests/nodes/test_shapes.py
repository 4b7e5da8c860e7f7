"""Workflows as people build them, stored as they are queued: what they put out, and what their nodes say."""

import json
from pathlib import Path
from typing import Any

import pytest

from cryptomnesia.sidecar import verify

from .harness import Comfy
from .test_calibrations import lora
from .test_pack import schemas

SHAPES = sorted((Path(__file__).parent / "shapes").glob("*.json"))


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_workflow_runs(comfy: Comfy, output: Path, path: Path):
    lora(comfy, 1.0)  # writes the file that one of them loads
    shape: dict[str, Any] = json.loads(path.read_text("utf-8"))
    comfy.fresh()
    result = comfy.run(shape["prompt"])
    assert result.ok and not result.named("execution_error"), result.error
    said = {name: [entry["state"] for entry in shown.get("cryptomnesia", [])] for name, shown in result.ui.items()}
    assert {name: " ".join(states) for name, states in said.items() if states} == shape["badges"]
    images = sorted(output.glob("*.png"))
    assert len(images) == shape["images"]
    assert all(verify(image).matches for image in images)


def test_a_workflow_of_an_older_version_runs(comfy: Comfy, output: Path):
    """Without the inputs that were added since: a list of widgets that is shorter than the node's."""
    newer = {"alignment", "report"}
    shape = json.loads((SHAPES[0].parent / "two_stages.json").read_text("utf-8"))
    for node in shape["prompt"].values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if name not in newer}
    assert comfy.run(shape["prompt"]).ok


def test_no_node_needs_what_another_of_the_pack_gives(comfy: Comfy):
    """Muted or bypassed, a node is left out of what is queued, with its links; the rest of the pack must do without."""
    for name, schema in schemas(comfy).items():
        needed = [
            value.id for value in schema.inputs if value.io_type.startswith("CRYPTOMNESIA_") and not value.optional
        ]
        assert not needed, name


def test_nothing_to_keep_or_to_verify_is_no_failure(comfy: Comfy):
    prompt = {
        "verify": {"class_type": "CryptomnesiaVerifyProvenance", "inputs": {"folder": "output"}},
        "keep": {"class_type": "CryptomnesiaSaveSignature", "inputs": {"name": "none"}},
    }
    result = comfy.run(prompt)
    assert result.ok and result.ui["verify"]["cryptomnesia"][0]["state"] == "cannot tell"
    assert "no signature came in" in result.ui["keep"]["text"][0]


def test_the_stored_controlnet_is_asked_and_stays(comfy: Comfy, output: Path):
    """Without it the same prompt has another score, and the same seed another image."""
    shape = json.loads((SHAPES[0].parent / "controlnet.json").read_text("utf-8"))["prompt"]
    without = json.loads(json.dumps(shape))
    without["7"]["inputs"]["strength"] = 0.0
    comfy.fresh()
    found = []
    for prompt in (shape, without):
        result = comfy.run(prompt | {"kept": {"class_type": "TestKeep", "inputs": {"value": ["8", 1]}}})
        assert result.ok, result.error
        found.append(result.outputs["kept"][0])
    assert abs(found[0] - found[1]) > 0.01
    first, second = sorted(output.glob("*.png"))
    assert first.read_bytes() != second.read_bytes()


def test_too_few_candidates_or_models_are_told_in_one_line(comfy: Comfy, output: Path):
    """Where they are muted: the run goes on, and the image is saved without a finding."""
    prompt = {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 0}},
        "who": {"class_type": "CryptomnesiaAttributeImage", "inputs": {"images": ["image", 0], "alpha": 0.05}},
        "whose": {"class_type": "CryptomnesiaModelLineage", "inputs": {"images": ["image", 0]}},
        "save": {
            "class_type": "CryptomnesiaSaveImage",
            "inputs": {"images": ["image", 0], "filename_prefix": "shape", "prompts": "plain", "sign": False},
        },
    }
    for number, name in enumerate(("who", "whose")):
        prompt["save"]["inputs"][f"findings.finding{number}"] = [name, 3]
        prompt[f"{name} plot"] = {"class_type": "PreviewImage", "inputs": {"images": [name, 0]}}
        prompt[f"{name} said"] = {"class_type": "TestKeep", "inputs": {"value": [name, 2]}}
    result = comfy.run(prompt)
    assert result.ok, result.error
    assert result.outputs["who"][1] == "not tested\nnot tested" and result.outputs["whose"][1] == "not tested"
    for name in ("who", "whose"):
        line = result.outputs[name][2]
        assert "nothing was asked" in line and "muted" in line and "\n" not in line
        assert result.outputs[name][0].std() > 0.02 and result.ui[f"{name} plot"]["images"]
    images = sorted(output.glob("*.png"))
    assert len(images) == 2 and all(verify(image).matches for image in images)


def test_one_candidate_is_too_few(comfy: Comfy):
    given = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    load = {"class_type": "CryptomnesiaLoadDemoModel", "inputs": {"checkpoint": "final"}}
    links = {"model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2], "images": ["image", 0], "name": "a"}
    candidate = {"class_type": "CryptomnesiaAttributionCandidate", "inputs": links}
    asked = {"images": ["image", 0], "alpha": 0.05, "candidates.candidate1": ["one", 0]}  # the first one is muted
    who = {"class_type": "CryptomnesiaAttributeImage", "inputs": asked}
    kept = {"class_type": "TestKeep", "inputs": {"value": ["who", 2]}}
    result = comfy.run({"image": given, "load": load, "one": candidate, "who": who, "kept": kept})
    assert result.ok and "and 1 came in" in result.outputs["kept"][0], result.error


def test_a_gate_behind_a_muted_node_stops_and_says_so(comfy: Comfy, output: Path):
    """What Rewrite Prompt would give is missing: the rest of the run goes on, and nothing fails."""
    shape = json.loads((SHAPES[0].parent / "subgraph.json").read_text("utf-8"))["prompt"]
    del shape["10:5"]
    missing = [["10:5", number] for number in range(4)]
    for node in shape.values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if value not in missing}
    result = comfy.run(shape)
    assert result.ok and not result.named("execution_error"), result.error
    (entry,) = result.ui["10:6"]["cryptomnesia"]
    assert entry["state"] == "stopped" and "muted" in entry["reason"] and "\n" not in entry["reason"]
    assert not list(output.glob("*.png"))
