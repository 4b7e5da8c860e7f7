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
