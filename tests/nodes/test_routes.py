"""The routes under /cryptomnesia/, on the real server."""

import hashlib
import json
import shutil
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from .graphs import BENIGN, MEMORIZED
from .server import Server
from .templates import SAVE
from .test_workflows import run, titled


def post(server: Server, path: str, data: Any) -> dict[str, Any]:
    """The answer, or the error with its status."""
    try:
        return json.loads(server.request(f"/cryptomnesia/{path}", data))
    except urllib.error.HTTPError as refused:
        return {"status": refused.code, **json.loads(refused.read())}


def refused(server: Server, path: str, data: Any) -> str:
    answer = post(server, path, data)
    assert answer["status"] == 400 and "\n" not in answer["error"]
    return answer["error"]


def test_a_check_is_queued_and_answered(server: Server):
    queued = post(server, "check", {"prompts": [MEMORIZED, BENIGN]})
    assert server.history(queued["prompt_id"])["status"]["status_str"] == "success"
    answer = json.loads(server.request(f"/cryptomnesia/check/{queued['prompt_id']}"))
    assert answer["state"] == "done"
    assert [(row["prompt"], row["verdict"]) for row in answer["rows"]] == [(MEMORIZED, "memorized"), (BENIGN, "clear")]
    assert not list((server.base / "output").rglob("*.csv"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "no JSON object"),
        ({}, "a list of texts"),
        ({"prompts": [1]}, "a list of texts"),
        ({"prompts": ["a"], "checkpoint": "../../secret.safetensors"}, "not in"),
        ({"prompts": ["a"], "calibration": "/etc/passwd"}, "not in"),
        ({"prompts": ["a"], "checkpoint": 3}, "checkpoint is a text"),
        ({"prompts": ["a"], "width": -8}, "width and height"),
        ({"prompts": ["a"], "height": True}, "width and height"),
    ],
)
def test_a_check_that_is_asked_wrongly_is_refused(server: Server, asked: Any, words: str):
    assert words in refused(server, "check", asked)


def test_what_fails_and_what_is_not_there(server: Server):
    queued = post(server, "check", {"prompts": [" "]})
    server.history(queued["prompt_id"])
    answer = json.loads(server.request(f"/cryptomnesia/check/{queued['prompt_id']}"))
    assert answer["state"] == "failed" and "there is no prompt" in answer["error"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        server.request("/cryptomnesia/check/nothing")


def test_an_image_is_verified(server: Server):
    result, saved, _ = run(server, SAVE)
    (file,) = result.ui[titled(saved, "CryptomnesiaSaveImage")[0]]["images"]
    place = server.base / "output" / file["subfolder"]
    copy = place / "routed.png"
    shutil.copy(place / file["filename"], copy)
    shutil.copy(place / f"{file['filename']}.cryptomnesia.json", f"{copy}.cryptomnesia.json")
    asked = {**file, "filename": copy.name}
    answer = post(server, "verify", asked)
    assert answer["matches"] and answer["result"] == "nobody vouches" and "matches its provenance" in answer["headline"]
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    again = post(server, "verify", {"filename": copy.name, "sha256": digest.upper()})
    assert again["matches"] and again["sidecar"] == "found"
    assert "of that name and content" in refused(server, "verify", {"filename": copy.name, "sha256": "0" * 64})
    assert "no file name" in refused(server, "verify", {"filename": "../a.png", "sha256": digest})
    copy.write_bytes(copy.read_bytes() + b"0")
    assert post(server, "verify", asked)["result"] == "changed"


@pytest.mark.parametrize("name", ["../server.log", "/etc/passwd", "a\0b"])
def test_nothing_outside_is_read(server: Server, name: str):
    assert "is not inside the output folder" in refused(server, "verify", {"filename": name})
    assert "is not inside the input folder" in refused(server, "verify", {"filename": name, "type": "input"})
    assert "none of ComfyUI's folders" in refused(server, "verify", {"filename": "x", "type": "models"})


def test_calibrations_are_listed(server: Server):
    from cryptomnesia.demo import demo_calibration

    place = server.base / "models" / "cryptomnesia"
    place.mkdir(exist_ok=True)
    made = demo_calibration()
    try:
        made.save(place / "listed.calibration.json")
        (place / "broken.calibration.json").write_text("{")
        answer = server.get("/cryptomnesia/calibrations")
        assert Path(answer["folder"]) == place
        found = {one["name"]: one for one in answer["calibrations"]}
        assert found["listed.calibration.json"]["fingerprint"] == made.fingerprint
        assert found["listed.calibration.json"]["draws"] == made.draws
        assert "error" in found["broken.calibration.json"]
    finally:
        for path in place.glob("*.calibration.json"):
            path.unlink()
