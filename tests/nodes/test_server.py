"""The harness around ComfyUI's real server."""

import pytest

from .results import node
from .server import Server
from .test_harness import sampling, slow


def test_the_packs_were_imported(server: Server):
    seconds, fine = server.imported("testpack")
    assert fine and seconds < 60
    with pytest.raises(LookupError):
        server.imported("nowhere")
    assert "seed" in server.object_info("KSampler")["input"]["required"]
    assert server.object_info("TestModel")["output"] == ["MODEL", "CLIP", "VAE"]


def test_a_prompt_runs_and_its_picture_can_be_fetched(server: Server):
    saving = {"7": node("VAEDecode", samples=["5", 0], vae=["1", 2])}
    saving |= {"8": node("SaveImage", images=["7", 0], filename_prefix="cat")}
    result = server.run(sampling("eps") | saving)
    assert result.ok, result.error
    (file,) = result.ui["8"]["images"]
    assert server.fetch(file).startswith(b"\x89PNG") and (server.base / "output" / file["filename"]).exists()
    # a prompt before this one, of another file of tests, may have left the model in the server's cache
    executed = {data["node"] for data in result.named("executing")}
    assert executed >= set("5678") and executed | result.cached >= set("12345678")
    assert server.run(sampling("eps")).cached >= set("12345")


def test_what_is_wrong_is_told(server: Server):
    result = server.run(sampling("eps", steps=0))
    assert not result.ok and "steps" in result.error and set(result.invalid) == {"5"}
    failing = server.run({"1": node("TestFail", message="out of luck"), "2": node("TestKeep", value=["1", 0])})
    assert failing.error == "TestFail 1: out of luck"


def test_interrupt(server: Server):
    def stop(event, data):
        if event == "progress":
            server.interrupt()

    result = server.run(slow(steps=40), on_event=stop)
    assert result.interrupted and not result.ok
    assert server.run(sampling("v")).ok


def test_settings_and_templates(server: Server):
    server.set("Comfy.TutorialCompleted", True)
    assert server.get("/settings")["Comfy.TutorialCompleted"] is True
    assert isinstance(server.templates(), dict)
