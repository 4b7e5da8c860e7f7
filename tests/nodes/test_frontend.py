"""The example workflows in ComfyUI's own frontend: opened as templates, run, and looked at."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from .browser import BOUNDS, NODES, ROOM, Browser
from .templates import ATTRIBUTE, CHECK, GATE, LINEAGE, LOCATE, MEMBERSHIP, NAMES, SAVE
from .test_workflows import CLEAR, MEMORIZED, NOTES, PACK, ROOT, converted, titled, workflow
from .thumbnails import parts, thumbnail

COMPLAINTS = ("failed", "issing", "rror", "nable to")
NODE_FIELDS = ("id", "type", "pos", "size", "mode", "widgets_values")
TRAINED = ("Likely trained on some of these images.\n12 suspects against 12 references", "look alike", "no proof")
CHILD = ("If all show the same prompts: likely a child of second model.\n", "no proof")
TEXTS = {  # of each node that is called so, a text or parts of one
    ATTRIBUTE: {"What that rests on": [("Likely made by first model", "none of these")]},
    CHECK: {"What the check says": [MEMORIZED, CLEAR]},
    GATE: {
        "What the gate says": ["Cryptomnesia stopped this branch (block if memorized). " + MEMORIZED],
        "What was changed": [CLEAR],
    },
    LOCATE: {"How much of it": ["likely memorized"], "What was changed": [CLEAR]},
    MEMBERSHIP: {"What that rests on": [TRAINED]},
    LINEAGE: {"What that rests on": [CHILD]},
    SAVE: {"What was changed": [CLEAR], "What holds": [f"{PACK}/demo_0"]},
}
IMAGES = {
    ATTRIBUTE: {"It looks like this": True, "Who likely made it": True},
    CHECK: {"What the model then makes": True},
    GATE: {"Stays empty": False, "No longer the training image": True},
    LOCATE: {"The memorized part": True, "The mask": True, "That part made anew": True},
    MEMBERSHIP: {"What was measured": True},
    LINEAGE: {"How far it is from each": True},
    SAVE: {"CryptomnesiaSaveImage": True},
}


@pytest.fixture(scope="module", params=NAMES)
def opened(request: pytest.FixtureRequest, browser: Browser) -> tuple[Browser, str]:
    """A template in the browser; nothing of it is left in the server's cache."""
    browser.server.request("/free", {"free_memory": True})
    browser.resize(1280, 800)
    browser.open_template(PACK, request.param)
    return browser, request.param


def shape(saved: dict[str, Any]) -> dict[str, Any]:
    """What matters of a saved workflow."""
    nodes = [
        {name: one.get(name) for name in NODE_FIELDS}
        | {"links": [(slot["name"], slot["type"], slot["link"]) for slot in one["inputs"]]}
        | {"outputs": [(slot["name"], sorted(slot["links"] or [])) for slot in one["outputs"]]}
        for one in sorted(saved["nodes"], key=lambda one: one["id"])
    ]
    groups = [(group["title"], list(group["bounding"])) for group in saved["groups"]]
    return {"nodes": nodes, "links": sorted(saved["links"]), "groups": groups}


def complaints(browser: Browser) -> list[str]:
    """Lines of dialogs and messages that tell of something wrong; the workflow's own notes are left out."""
    notes = "\n".join(browser.evaluate("[...document.querySelectorAll('.comfy-markdown')].map(one => one.innerText)"))
    lines = [line for line in browser.words().splitlines() if line not in notes.splitlines()]
    return [line for line in lines if any(word in line for word in COMPLAINTS)]


def shown(browser: Browser, number: str) -> str:
    """The text in a preview node."""
    script = f"app.graph.getNodeById({number}).widgets.map(one => one.value).filter(one => typeof one === 'string')"
    return "\n".join(browser.evaluate(script))


def crop(photograph: Image.Image, browser: Browser, number: str) -> Image.Image:
    """The lower part of a node, where its images are."""
    left, top, _, _ = browser.evaluate(BOUNDS)
    x, y, width, height = browser.evaluate(
        f"(() => {{ const n = app.graph.getNodeById({number}); return [...n.pos, ...n.size]; }})()"
    )
    x, y = x - left + ROOM / 2, y - top + ROOM / 2
    return photograph.crop((round(x + 20), round(y + height / 2), round(x + width - 20), round(y + height - 20)))


def test_the_frontend_saves_and_posts_what_is_in_the_file(opened: tuple[Browser, str]):
    browser, name = opened
    saved = workflow(name)
    assert shape(json.loads(browser.evaluate("JSON.stringify(app.graph.serialize())"))) == shape(saved)
    posted = browser.evaluate("app.graphToPrompt().then(made => made.output)")
    assert {number: {key: one[key] for key in ("class_type", "inputs")} for number, one in posted.items()} == converted(
        browser.server, saved
    )


def test_nothing_is_missing(opened: tuple[Browser, str]):
    browser, name = opened
    unknown = browser.evaluate(
        "app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
    )
    titles = dict(browser.evaluate("app.graph._nodes.map(n => [String(n.id), n.title])"))
    assert not unknown and not complaints(browser)
    assert browser.evaluate("app.canvas.low_quality") is False  # so small, and texts would be blank
    for one in workflow(name)["nodes"]:
        display = one["type"] if one["type"] in NOTES else browser.server.object_info(one["type"])["display_name"]
        assert titles[str(one["id"])] == one.get("title", display)


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_a_workflow_runs_without_any_one_of_the_checks(opened: tuple[Browser, str], mode: int):
    """Muted or bypassed, a node that only measures is missed by no other of the pack."""
    browser, name = opened
    checks = titled(workflow(name), "CryptomnesiaMemorizationCheck")
    if mode == 4 and name != SAVE:  # there it makes what is sampled, and has nothing to pass on
        checks += titled(workflow(name), "CryptomnesiaRewritePrompt")
        checks += titled(workflow(name), "CryptomnesiaMemorizationGate")
    for number in checks:
        browser.evaluate(f"app.graph.getNodeById({number}).mode = {mode}")
        posted = browser.evaluate("app.graphToPrompt().then(made => made.output)")
        browser.evaluate(f"app.graph.getNodeById({number}).mode = 0")
        for one, entry in posted.items():
            if not entry["class_type"].startswith("Cryptomnesia") and entry["class_type"] != "KSampler":
                continue  # previews of its texts are missed
            needed = browser.server.object_info(entry["class_type"])["input"].get("required", {})
            assert set(needed) <= set(entry["inputs"]), (number, one)


def test_a_run_shows_texts_and_images(opened: tuple[Browser, str], tmp_path: Path):
    browser, name = opened
    saved = workflow(name)
    history = browser.queue()
    assert history["status"]["status_str"] == "success"
    assert not complaints(browser)  # a branch that a gate stopped is no failure
    for title, texts in TEXTS[name].items():
        for number, text in zip(titled(saved, title), texts, strict=True):
            found = shown(browser, number)
            assert all(part in found for part in ([text] if isinstance(text, str) else text))
    if name == GATE:
        browser.until(lambda: all(map(said_more, gates(browser))), "what the gates say", 30)
        stopped, passed = gates(browser)
        assert "Cryptomnesia stopped this branch" in stopped and MEMORIZED in stopped
        assert "stopped" not in passed and CLEAR in passed
    photograph = browser.photograph(tmp_path / f"{name}.png")
    look_at(browser, saved, Image.open(photograph).convert("RGB"), IMAGES[name])
    small = thumbnail(parts(browser, name, saved, history), tmp_path / f"{name}.jpg")
    assert apart(small, ROOT / "workflows" / f"{name}.jpg") < 3  # what the list of templates shows is what comes out


def apart(*files: Path) -> float:
    """Of two pictures, in levels of 255."""
    first, second = (Image.open(file).convert("RGB") for file in files)
    return sum(ImageStat.Stat(ImageChops.difference(first, second)).mean) / 3


def test_the_template_browser_shows_sentences_and_opens_one(browser: Browser):
    browser.resize(1280, 800)
    browser.pick_template(PACK, LINEAGE)
    wanted = len(workflow(LINEAGE)["nodes"])
    browser.wait(f"{NODES} === {wanted} && !document.querySelector('[data-testid^=template-workflow]')")
    assert browser.evaluate("app.graph._nodes.some(n => n.type === 'CryptomnesiaModelLineage')")


def gates(browser: Browser) -> list[str]:
    """What gates show on themselves."""
    script = "app.graph._nodes.filter(n => n.type === 'CryptomnesiaMemorizationGate').map(n => String(n.id))"
    return [shown(browser, number) for number in browser.evaluate(script)]


def said_more(text: str) -> bool:
    """More than the policy's widget."""
    return "\n" in text


def look_at(browser: Browser, saved: dict[str, Any], photograph: Image.Image, images: dict[str, bool]) -> None:
    for title, there in images.items():
        for number in titled(saved, title):
            assert (max(ImageStat.Stat(crop(photograph, browser, number)).stddev) > 15) == there, title


def test_a_missing_node_would_be_noticed(browser: Browser):
    saved = workflow(CHECK)
    next(one for one in saved["nodes"] if one["type"] == "VAEDecode")["type"] = "NoSuchNode"
    browser.open()
    browser.evaluate(f"app.loadGraphData({json.dumps(saved)})")
    browser.settle()
    assert complaints(browser)


def test_a_subgraph_as_the_frontend_stores_it_runs(browser: Browser):
    """Rewrite Prompt and its gate are inside it; what they find stands at their places in it."""
    stored = json.loads((ROOT / "tests/nodes/shapes/frontend/subgraph.json").read_text("utf-8"))
    (inner,) = stored["definitions"]["subgraphs"]
    (outer,) = [one["id"] for one in stored["nodes"] if one["type"] == inner["id"]]
    browser.server.request("/free", {"free_memory": True})
    browser.open()
    browser.evaluate(f"app.loadGraphData({json.dumps(stored)}).then(() => 0)")
    browser.settle()
    assert not complaints(browser)
    history = browser.queue()
    assert history["status"]["status_str"] == "success" and not complaints(browser)
    said = {name: shown["cryptomnesia"][0] for name, shown in history["outputs"].items() if "cryptomnesia" in shown}
    found = {one["type"]: said[f"{outer}:{one['id']}"] for one in inner["nodes"]}
    assert found["CryptomnesiaRewritePrompt"]["mitigation"]["held"]
    assert found["CryptomnesiaMemorizationGate"]["state"] == "passed"
