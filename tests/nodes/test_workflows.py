"""The example workflows, over HTTP on the real server: they run, are cached, are stopped, and are served."""

import io
import json
import re
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from .results import Result, node
from .server import Server
from .templates import CHECK, GATE, LINEAGE, LOCATE, MEMBERSHIP, NAMES, SAVE, WITH_MODEL
from .thumbnails import SIZE

ROOT = Path(__file__).parents[2]
PACK = "cryptomnesia"
NOTES = ("Note", "MarkdownNote")
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
ANY = ("*", "COMFY_MATCHTYPE_V3")
TITLE = 30  # a node's title stands above its place
MEMORIZED, CLEAR = "LIKELY MEMORIZED: p = 0.00", "clear: p = 0."
EXAMPLES = [f"a photo of {number} apples" for number in range(112)]


def workflow(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))


def inputs(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A node's inputs in the order of its widgets: type, or list of choices, and options."""
    specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in specs.items()}


def is_widget(kind: Any, options: dict[str, Any]) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def has_control(name: str, kind: Any, options: dict[str, Any]) -> bool:
    """Whether the frontend adds its own widget, control_after_generate, which no node gets."""
    return kind == "INT" and (name in ("seed", "noise_seed") or bool(options.get("control_after_generate")))


def converted(server: Server, saved: dict[str, Any]) -> dict[str, Any]:
    """What the frontend would post for a saved workflow."""
    sources = {link[0]: [str(link[1]), link[2]] for link in saved["links"]}
    prompt = {}
    for one in saved["nodes"]:
        if one["type"] in NOTES:
            continue
        values = iter(one["widgets_values"])
        given: dict[str, Any] = {}
        for name, (kind, options) in inputs(server.object_info(one["type"])).items():
            if is_widget(kind, options):
                given[name] = next(values)
                if has_control(name, kind, options):
                    next(values)
        assert not list(values), f"{one['type']}: more values than widgets"
        links = {slot["name"]: sources[slot["link"]] for slot in one["inputs"] if slot["link"] is not None}
        prompt[str(one["id"])] = {"class_type": one["type"], "inputs": given | links}
    return prompt


def titled(saved: dict[str, Any], title: str) -> list[str]:
    """Ids of the nodes that are called so."""
    return [str(one["id"]) for one in saved["nodes"] if title in (one.get("title"), one["type"])]


def said(result: Result, saved: dict[str, Any], title: str) -> list[str]:
    return ["\n".join(result.ui[name]["text"]) for name in titled(saved, title)]


def run(server: Server, name: str) -> tuple[Result, dict[str, Any], dict[str, Any]]:
    saved = workflow(name)
    prompt = converted(server, saved)
    result = server.run(prompt, {"extra_pnginfo": {"workflow": saved}})
    assert result.ok, result.error
    return result, saved, prompt


def pictures(server: Server, result: Result, number: str) -> list[Image.Image]:
    files = result.ui[number]["images"]
    return [Image.open(io.BytesIO(server.fetch(file))).convert("RGB") for file in files]


def difference(images: list[Image.Image]) -> float:
    """Between the first and the others, of 255 levels."""
    found = [ImageStat.Stat(ImageChops.difference(images[0], image)).mean for image in images[1:]]
    return sum(map(sum, found)) / (3 * len(found))


def box(one: dict[str, Any]) -> tuple[float, float, float, float]:
    (x, y), (width, height) = one["pos"], one["size"]
    return x, y - TITLE, x + width, y + height


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    left, top, right, bottom = box(a)
    other = box(b)
    return left < other[2] and other[0] < right and top < other[3] and other[1] < bottom


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_can_be_read(name: str):
    saved = workflow(name)
    nodes = saved["nodes"]
    assert not [(a["id"], b["id"]) for a in nodes for b in nodes if a["id"] < b["id"] and overlap(a, b)]
    assert saved["groups"] and all(group["title"] for group in saved["groups"])
    texts = "\n".join(one["widgets_values"][0] for one in nodes if one["type"] == "MarkdownNote")
    assert "## " in texts and "Load Checkpoint" in texts and "Calibrate Model" in texts
    assert len({one["id"] for one in nodes}) == len(nodes) and saved["last_node_id"] >= len(nodes)


def wanted_by(info: dict[str, Any], slot: str) -> Any:
    """The type of a slot; "candidates.candidate0" is one of those that the input `candidates` grows."""
    name, grown, _ = slot.partition(".")
    kind, options = inputs(info)[name]
    return next(iter(options["template"]["input"]["required"].values()))[0] if grown else kind


@pytest.mark.parametrize("name", NAMES)
def test_types_fit_with_either_loader(server: Server, name: str):
    saved = workflow(name)
    info = {one["type"]: server.object_info(one["type"]) for one in saved["nodes"] if one["type"] not in NOTES}
    loaders = [server.object_info(loader) for loader in ("CheckpointLoaderSimple", "CryptomnesiaLoadDemoModel")]
    assert loaders[0]["output"] == loaders[1]["output"]
    kinds = {one["id"]: one["type"] for one in saved["nodes"]}
    slots = {one["id"]: one["inputs"] for one in saved["nodes"]}
    for number, source, output, target, slot, kind in saved["links"]:
        given = info[kinds[source]]["output"][output]
        wanted = wanted_by(info[kinds[target]], slots[target][slot]["name"])
        assert slots[target][slot]["link"] == number
        assert given in (kind, *ANY) and wanted in (kind, *ANY)


@pytest.mark.parametrize("name", WITH_MODEL)
def test_another_loader_lacks_nothing_but_its_file(server: Server, name: str):
    saved = workflow(name)
    prompt = converted(server, saved)
    loaders = titled(saved, "CryptomnesiaLoadDemoModel")
    prompt |= {loader: node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors") for loader in loaders}
    result = server.run(prompt)
    assert loaders and set(result.invalid) == set(loaders) and "sd15.safetensors" in (result.error or "")


def test_check(server: Server):
    result, saved, prompt = run(server, CHECK)
    first, second = said(result, saved, "What the check says")
    assert first.startswith(MEMORIZED) and second.startswith(CLEAR)
    memorized, ordinary = (pictures(server, result, number) for number in titled(saved, "What the model then makes"))
    assert [image.size for image in memorized + ordinary] == [(256, 256)] * 8
    assert difference(memorized) < 5 < 10 < difference(ordinary)
    again = run(server, CHECK)[0]
    assert again.cached == set(prompt)


def test_gate_and_rewrite(server: Server):
    result, saved, _ = run(server, GATE)
    stopped, through = titled(saved, "KSampler")
    assert not result.named("execution_error")
    (text,) = said(result, saved, "What the gate says")
    assert text.startswith("Cryptomnesia stopped this branch") and "LIKELY MEMORIZED" in text
    assert text in [
        shown for gate in titled(saved, "CryptomnesiaMemorizationGate") for shown in result.ui[gate]["text"]
    ]
    assert {data["node"] for data in result.named("progress")} & {stopped, through} == {through}
    assert "after:  the restless" in said(result, saved, "What was changed")[0]
    assert not (result.ui.get(titled(saved, "Stays empty")[0]) or {}).get("images")
    (new,) = titled(saved, "No longer the training image")
    assert difference(pictures(server, result, new)) > 10


def test_a_second_run_still_shows_what_was_stopped(server: Server):
    """Also where all of it comes from the cache."""
    run(server, GATE)
    again, saved, prompt = run(server, GATE)
    assert again.cached == set(prompt) and not again.named("execution_error")
    assert "stopped" in said(again, saved, "What the gate says")[0]


def test_locate_and_repaint(server: Server):
    result, saved, _ = run(server, LOCATE)
    assert "of the image is likely memorized" in said(result, saved, "How much of it")[0]
    assert "rewrite: held" in said(result, saved, "What was changed")[0]
    mask, new = (result.ui[titled(saved, title)[0]]["images"][0] for title in ("The mask", "That part made anew"))
    area = np.asarray(Image.open(io.BytesIO(server.fetch(mask))).convert("L")) > 127
    assert 0.2 < area.mean() < 0.8
    assert Image.open(io.BytesIO(server.fetch(new))).size == (256, 256)


@pytest.mark.parametrize("name", [MEMBERSHIP, LINEAGE])
def test_a_folder_that_is_not_there_is_named_at_its_node(server: Server, name: str):
    saved = workflow(name)
    prompt = converted(server, saved)
    loaders = titled(saved, "LoadImageTextDataSetFromFolder")
    notes = "\n".join(one["widgets_values"][0] for one in saved["nodes"] if one["type"] in NOTES)
    assert all(f"`{prompt[loader]['inputs']['folder']}`" in notes for loader in loaders)
    for loader in loaders:
        prompt[loader]["inputs"]["folder"] += " elsewhere"
    result = server.run(prompt)
    assert loaders and set(result.invalid) == set(loaders)
    assert all(prompt[loader]["inputs"]["folder"] in str(result.invalid[loader]) for loader in loaders)


def test_save_with_provenance(server: Server):
    result, saved, prompt = run(server, SAVE)
    (save,) = titled(saved, "CryptomnesiaSaveImage")
    (file,) = result.ui[save]["images"]
    place = server.base / "output" / file["subfolder"] / file["filename"]
    sidecar = json.loads(place.with_name(place.name + ".cryptomnesia.json").read_text("utf-8"))
    assert "the restless beacon of grimsby" in json.dumps(sidecar) and "built-in model" in json.dumps(sidecar)
    assert Image.open(place).info["workflow"]
    assert "byte for byte" in said(result, saved, "What holds")[0]
    verify = titled(saved, "CryptomnesiaVerifyProvenance") + titled(saved, "What holds")
    saved_so_far = len(list(place.parent.glob("*.png")))  # the browser's tests may have saved some
    again = run(server, SAVE)[0]
    assert again.cached >= set(prompt) - set(verify) and len(list(place.parent.glob("*.png"))) == saved_so_far
    change_a_pixel(place)
    changed = said(run(server, SAVE)[0], saved, "What holds")[0]
    assert "byte for byte" not in changed and "not" in changed


def change_a_pixel(place: Path) -> None:
    image = Image.open(place).convert("RGB")
    colour: Any = image.getpixel((0, 0))
    red, green, blue = colour
    image.putpixel((0, 0), (255 - red, green, blue))
    image.save(place)


def calibration(name: str) -> dict[str, Any]:
    loaded = {"model": ["load", 0], "clip": ["load", 1], "latent": ["latent", 0]}
    settings = {"name": name, "draws": 1, "alpha": 0.01, "prompts": "\n".join(EXAMPLES), "check_seed": 0}
    return {
        "load": node("CryptomnesiaLoadDemoModel", checkpoint="final"),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "calibrate": node("CryptomnesiaCalibrateModel", **loaded | settings),
    }


@pytest.fixture
def folder(server: Server) -> Iterator[Path]:
    """Of calibrations; emptied, since "automatic" would take them for the workflows."""
    place = server.base / "models" / PACK
    yield place
    for path in place.glob("cancelled.*"):
        path.unlink()


def test_a_cancelled_calibration_goes_on_where_it_was(server: Server, folder: Path):
    def stop(event: Any, data: Any) -> None:
        if event == "progress" and data["value"] > 0:
            server.interrupt()

    result = server.run(calibration("cancelled"), on_event=stop)
    assert result.interrupted
    measured = len(json.loads((folder / "cancelled.calibration.json.partial").read_text("utf-8"))["rows"])
    assert 0 < measured < len(EXAMPLES)
    done = server.run(calibration("cancelled"))
    assert done.ok and "112 benign prompts" in done.ui["calibrate"]["text"][0]
    assert min(data["value"] for data in done.named("progress")) >= measured
    assert (folder / "cancelled.calibration.json").exists() and not list(folder.glob("*.partial"))
    assert "cancelled.calibration.json" in json.dumps(server.object_info("CryptomnesiaMemorizationCheck"))


def test_templates_are_listed_and_served_with_thumbnails(server: Server):
    assert sorted(server.templates()[PACK]) == sorted(NAMES)
    for name in NAMES:
        assert server.template(PACK, name) == workflow(name)
        assert " " in name and name[0].isupper() and not re.search(r"[_.]|\W\W", name)  # shown as it is
        content = server.request(f"/api/workflow_templates/{PACK}/{urllib.parse.quote(name)}.jpg")
        image = Image.open(io.BytesIO(content))
        assert image.format == "JPEG" and image.size == SIZE and len(content) < 150_000
        assert max(ImageStat.Stat(image).stddev) > 20


def test_every_node_has_a_help_page(server: Server):
    found = server.get("/object_info")
    ours = [name for name, info in found.items() if info["python_module"] == f"custom_nodes.{PACK}"]
    assert len(ours) == len(list((ROOT / "web" / "docs").glob("*.md")))
    missing = [name for name in ours if not help_page(server, name).strip()]
    assert not missing


def help_page(server: Server, name: str) -> str:
    try:
        return server.request(f"/extensions/{PACK}/docs/{name}.md").decode()
    except urllib.error.HTTPError:
        return ""
