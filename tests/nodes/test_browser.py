"""The harness around the frontend: opens a template of the test pack, runs it and photographs it."""

import struct
from pathlib import Path

import pytest

from .browser import Browser


def test_a_template_is_opened_run_and_photographed(browser: Browser, tmp_path: Path):
    assert browser.server.templates()["testpack"] == ["sampling"]
    browser.open_template("testpack", "sampling")
    assert "KSampler" in browser.evaluate("app.graph._nodes.map(node => node.type)")
    assert browser.queue()["status"]["status_str"] == "success"
    content = browser.photograph(tmp_path / "graph.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG") and 1000 < width < 1400 and 850 < height < 1150 and len(content) > 20_000


def test_a_workflow_that_is_refused_says_why(browser: Browser):
    browser.open_template("testpack", "sampling")
    browser.evaluate("void app.graph._nodes.find(n => n.type === 'KSampler').disconnectInput(0)")
    with pytest.raises(RuntimeError, match="model"):
        browser.queue()
    with pytest.raises(RuntimeError, match="nowhere"):
        browser.evaluate("nowhere.at.all")
