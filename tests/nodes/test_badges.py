"""What nodes show on themselves after a run, in ComfyUI's own page: in LiteGraph and in Nodes 2.0."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cryptomnesia.sidecar import Generation, save

from .browser import Browser
from .templates import GATE
from .test_workflows import PACK

STYLES = {"LiteGraph": False, "Nodes 2.0": True}
# for what does not hang on the style
ONE_STYLE = pytest.mark.parametrize("style", ["Nodes 2.0"], indirect=True)
BADGES = """app.graph._nodes.filter(n => n.type.startsWith('Cryptomnesia')).map(n => [n.type.slice(12),
  n.badges.map(one => typeof one === 'function' ? one().text : one.text).slice(1).join()])"""
AFTER = [
    ["LoadDemoModel", ""],
    ["MemorizationCheck", "likely memorized, p = 0.0031"],
    ["MemorizationGate", "stopped here, p = 0.0031"],
    ["RewritePrompt", "clear, p = 0.98"],
    ["MemorizationGate", "let through, p = 0.98"],
]
OTHER = "No longer the training image"
HOSTILE = "<img src=x onerror='window.hacked = 1'><b>beacon</b> [[a|https://example.org]]"


@pytest.fixture(scope="module", params=STYLES)
def style(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Browser]:
    """A template that was run, in one of the styles; the style is put back."""
    browser.server.set("Comfy.VueNodes.Enabled", STYLES[request.param])
    browser.server.request("/free", {"free_memory": True})
    browser.open_template(PACK, GATE)
    assert browser.evaluate(BADGES) == [[name, ""] for name, _ in AFTER]
    assert browser.queue()["status"]["status_str"] == "success"
    yield browser
    browser.server.set("Comfy.VueNodes.Enabled", False)


def is_vue(browser: Browser) -> bool:
    return browser.evaluate("!!document.querySelector('[data-node-id]')")


def on_page(browser: Browser, kind: str) -> str:
    """What the page itself says in the node of a kind, where nodes are part of the page."""
    script = f"app.graph._nodes.find(n => n.type === 'Cryptomnesia{kind}').id"
    return browser.evaluate(f"document.querySelector(`[data-node-id='${{{script}}}']`).innerText")


def lines(browser: Browser) -> str:
    """The lines below the widgets, with marks around what was changed."""
    script = "[...document.querySelectorAll('.cryptomnesia-lines')].map(one => one.innerHTML).join('\\n')"
    found = browser.evaluate(script)
    for tag in ("del", "ins"):
        found = found.replace(f"</{tag}>", f"/{tag}>")
    return found


def test_each_node_says_what_it_found(style: Browser):
    assert style.evaluate(BADGES) == AFTER
    found = lines(style)
    assert ">beacon/del>" in found and ">meadow/ins>" in found and ">restless</span>" in found
    if is_vue(style):
        assert "likely memorized, p = 0.0031" in on_page(style, "MemorizationCheck")
        assert "stopped here" in on_page(style, "MemorizationGate")


def test_it_is_kept_when_the_page_is_loaded_again(style: Browser):
    saved = style.evaluate("JSON.stringify(app.graph.serialize())")
    assert "likely memorized" not in saved and "meadow" not in saved  # no part of the workflow
    style.open()
    style.wait("app.graph._nodes.length > 10")
    style.wait(f"JSON.stringify({BADGES}) === {json.dumps(json.dumps(AFTER, separators=(',', ':')))}")
    assert ">meadow/ins>" in lines(style)
    if is_vue(style):
        assert "likely memorized, p = 0.0031" in on_page(style, "MemorizationCheck")


def shown(browser: Browser, number: int, entries: list[dict[str, Any]]) -> str:
    """The badge of one of the pack's nodes once it was told these entries, as after a run."""
    node = "app.graph._nodes.filter(n => n.type.startsWith('Cryptomnesia'))"
    browser.evaluate(f"void {node}[{number}].onExecuted({json.dumps({'cryptomnesia': entries})})")
    return browser.evaluate(BADGES)[number][1]


def test_no_html_is_made_of_prompts(style: Browser):
    about = {"held": True, "original": HOSTILE, "rewritten": "<script>window.hacked = 1</script> castle", "method": "x"}
    entry = {"state": "memorized", "p_value": 1e-4, "reason": HOSTILE, "stopped": None, "mitigation": about}
    assert shown(style, 3, [entry]) == "likely memorized, p < 0.001"
    assert shown(style, 3, [entry | {"state": HOSTILE, "p_value": None}]) == HOSTILE
    style.settle()
    found = style.evaluate("[...document.querySelectorAll('.cryptomnesia-lines')].map(e => e.textContent).join()")
    assert HOSTILE in found and "<script>window.hacked" in found
    assert style.evaluate("document.querySelectorAll('.cryptomnesia-lines :is(img, b, script, a)').length") == 0
    assert style.evaluate("window.hacked === undefined")


def test_several_prompts_and_strange_entries(style: Browser):
    clear, flagged = {"state": "clear", "p_value": 0.5}, {"state": "memorized", "p_value": 0.004}
    assert shown(style, 1, [clear, flagged, flagged]) == "2 of 3 likely memorized"
    assert shown(style, 1, [clear, clear]) == "2 of 2 clear"
    assert shown(style, 1, [{"state": "uncalibrated", "reason": "none"}]) == "no verdict: not calibrated"
    assert shown(style, 1, []) == "no verdict: not calibrated"  # nothing was said: nothing is changed


def test_a_verdict_on_what_no_longer_stands_there_is_called_an_earlier_one(style: Browser):
    node = "app.graph._nodes.find(n => n.title === 'Prompt of both rows')"
    assert shown(style, 1, [{"state": "memorized", "p_value": 0.004}]) == "likely memorized, p = 0.004"
    style.evaluate(f"void ({node}.widgets[0].value = 'another prompt')")
    look = "app.extensionManager.workflow.activeWorkflow.changeTracker"
    check = f"void ({look}.captureCanvasState ?? {look}.checkState).call({look})"
    style.evaluate(check)
    style.wait(f"{BADGES}[1][1] === 'earlier: likely memorized, p = 0.004'")
    style.evaluate(f"void ({node}.widgets[0].value = 'the restless beacon of grimsby')")
    style.evaluate(check)
    style.wait(f"{BADGES}[1][1] === 'likely memorized, p = 0.004'")


@ONE_STYLE
def test_a_run_that_was_remembered_is_shown_and_one_that_was_overtaken_is_an_earlier_one(style: Browser):
    style.evaluate("localStorage.removeItem('cryptomnesia.verdicts')")
    style.open_template(PACK, GATE)
    assert style.evaluate(BADGES)[1][1] == ""
    history = style.queue()
    assert history["status"]["status_str"] == "success"
    style.wait(f"{BADGES}[1][1] === 'likely memorized, p = 0.0031'")
    # written on while it was queued
    node = "app.graph._nodes.find(n => n.title === 'Prompt of both rows')"
    run = "app.queuePrompt(0)"
    style.evaluate(f"{run}.then(() => void ({node}.widgets[0].value = 'another prompt'))")
    style.wait(f"{BADGES}[1][1] === 'earlier: likely memorized, p = 0.0031'")
    style.evaluate(f"void ({node}.widgets[0].value = 'the restless beacon of grimsby')")


def test_calibrating_shows_how_far_it_is_and_survives_a_server_that_goes(style: Browser):
    style.evaluate("void app.graph.add(LiteGraph.createNode('CryptomnesiaCalibrateModel'))")
    number = style.evaluate("app.graph._nodes.find(n => n.type === 'CryptomnesiaCalibrateModel').id")
    detail = json.dumps({"node": str(number), "value": 96, "max": 486})
    style.evaluate(f"void app.api.dispatchEvent(new CustomEvent('progress', {{detail: {detail}}}))")
    assert style.evaluate(BADGES)[-1] == ["CalibrateModel", "calibrating: 96 of 486"]
    style.evaluate("void app.api.dispatchEvent(new CustomEvent('reconnecting'))")
    assert style.evaluate(BADGES)[-1] == ["CalibrateModel", "stopped; run again to go on"]
    assert shown(style, -1 % len(style.evaluate(BADGES)), [{"state": "calibrated", "detail": "on 486 prompts"}]) == (
        "calibrated on 486 prompts"
    )


def menu(browser: Browser, kind: str) -> list[str]:
    """What the pack adds to a node's menu."""
    node = f"app.graph._nodes.find(n => n.type === '{kind}')"
    return browser.evaluate(f"app.collectNodeMenuItems({node}).filter(item => item).map(item => item.content)")


def choose(browser: Browser, kind: str, number: int) -> None:
    node = f"app.graph._nodes.find(n => n.type === '{kind}')"
    browser.evaluate(f"void app.collectNodeMenuItems({node}).filter(item => item)[{number}].callback()")


def test_a_model_can_be_calibrated_from_its_menu(style: Browser):
    assert menu(style, "CryptomnesiaLoadDemoModel") == ["Cryptomnesia: calibrate this model"]
    assert menu(style, "MarkdownNote") == []
    earlier = "app.graph._nodes.filter(n => n.type === 'CryptomnesiaCalibrateModel')"
    style.evaluate(f"void {earlier}.forEach(n => app.graph.remove(n))")
    choose(style, "CryptomnesiaLoadDemoModel", 0)
    made = "app.graph._nodes.find(n => n.type === 'CryptomnesiaCalibrateModel')"
    linked = style.evaluate(f"{made}.inputs.filter(one => one.link !== null).map(one => one.name)")
    assert linked == ["model", "clip", "latent"]


def test_an_image_is_verified_from_its_menu(style: Browser):
    images = [{"filename": "gone.png", "subfolder": "", "type": "output"}]
    number = style.evaluate("app.graph._nodes.findLast(n => n.type === 'PreviewImage').id")
    style.evaluate(f"void (app.nodeOutputs = {{ ...app.nodeOutputs, {number}: {{ images: {json.dumps(images)} }} }})")
    node = f"app.graph.getNodeById({number})"
    style.evaluate(f"void app.collectNodeMenuItems({node}).filter(item => item)[0].callback()")
    style.wait("!!document.querySelector('.cryptomnesia-dialog')")
    assert "gone.png" in style.evaluate("document.querySelector('.cryptomnesia-dialog').innerText")
    style.evaluate("document.querySelector('.cryptomnesia-dialog button').click()")
    style.wait("document.querySelector('.cryptomnesia-dialog') === null")


@ONE_STYLE
def test_new_nodes_begin_as_the_settings_say(style: Browser):
    read = "LiteGraph.createNode('CryptomnesiaGuardedKSampler').widgets.find(one => one.name === 'policy').value"
    assert style.evaluate(read) == "warn"
    style.evaluate("app.extensionManager.setting.set('Cryptomnesia.Policy', 'block')")
    assert style.evaluate(read) == "block"
    style.evaluate("app.extensionManager.setting.set('Cryptomnesia.Policy', 'warn')")
    # what is opened keeps what it was saved with
    made = "LiteGraph.createNode('CryptomnesiaMemorizationCheck')"
    saved = f"{{...{made}.serialize(), widgets_values: [9, 0, 'none', false]}}"
    assert style.evaluate(f"(n => {{ n.configure({saved}); return n.widgets[0].value; }})({made})") == 9


@ONE_STYLE
def test_a_saved_image_that_is_dragged_in_says_how_it_was_made(style: Browser):
    place = style.server.base / "output" / "dropped"
    place.mkdir(exist_ok=True)
    save(np.zeros((8, 8, 3), np.uint8), place / "saved.png", None, Generation(host="tests"))
    drop = """(async () => {
      const data = new DataTransfer();
      const bytes = await (await fetch('/view?filename=saved.png&subfolder=dropped&type=output')).blob();
      data.items.add(new File([bytes], 'saved.png', { type: 'image/png' }));
      document.dispatchEvent(new DragEvent('drop', { dataTransfer: data }));
    })()"""
    style.evaluate(drop)
    style.wait("document.body.innerText.includes('matches its provenance, which nobody signed')")


@ONE_STYLE
def test_what_was_skipped_shows_no_picture_of_an_earlier_run(style: Browser):
    style.open_template(PACK, GATE)
    gate = "app.graph._nodes.find(n => n.type === 'CryptomnesiaMemorizationGate')"
    end, other = (f"app.graph._nodes.find(n => n.title === '{title}')" for title in ("Stays empty", OTHER))
    images = f"(app.nodeOutputs[{end}.id]?.images ?? []).length"
    style.evaluate(f"void ({gate}.widgets[0].value = 'pass with a warning')")
    style.queue()
    style.wait(f"{images} === 4")
    style.evaluate(f"void ({gate}.widgets[0].value = 'block if memorized')")
    style.queue()
    style.wait(f"{images} === 0 && !({end}.imgs?.length)")
    assert style.evaluate(f"app.nodeOutputs[{other}.id].images.length") == 4
    if is_vue(style):
        style.wait(f"document.querySelectorAll(`[data-node-id='${{{end}.id}}'] img`).length === 0")
