"""What the extension puts on the web UI's pages: accordion, settings, axes, and the button that calibrates."""

import sys
import types
from dataclasses import fields
from typing import Any

import pytest
import torch

from cryptomnesia import calibration_store
from cryptomnesia.demo import demo_calibration
from cryptomnesia_webui import accordion, calibrating, options
from cryptomnesia_webui.choices import AXES, Choices

from .conftest import MEMORIZED, ORDINARY
from .host import Processing


class Component:
    """What gradio makes: it remembers what it was made of, and what a click does."""

    made: list["Component"] = []  # noqa: RUF012

    def __init__(self, kind: str, *args: Any, **about: Any):
        self.kind, self.args, self.about, self.clicked = kind, args, about, None
        self.made.append(self)

    def __enter__(self) -> "Component":
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def click(self, **about: Any) -> None:
        self.clicked = about


@pytest.fixture
def gradio(monkeypatch: pytest.MonkeyPatch) -> list[Component]:
    module: Any = types.ModuleType("gradio")
    for kind in ("Accordion", "Row", "HTML", "Radio", "Dropdown", "Slider", "Checkbox", "Button", "Number"):
        setattr(module, kind, lambda *args, kind=kind, **about: Component(kind, *args, **about))
    monkeypatch.setitem(sys.modules, "gradio", module)
    monkeypatch.setattr(accordion, "SIZES", {})
    Component.made.clear()
    return Component.made


def test_the_accordion_gives_the_choices_in_order(start: Any, gradio: list[Component]):
    script = start("a1111").script
    for name in ("prompt", "width", "height"):
        script.after_component(name, elem_id=f"txt2img_{name}")
    components = script.ui(False)
    named = [str(component.about["elem_id"]).removeprefix("txt2img_cryptomnesia_") for component in components]
    assert named == [field.name for field in fields(Choices)][: len(named)]
    values = [component.about["value"] for component in components]
    assert Choices.of(values, Choices(), {}) == Choices()
    assert [key for _, key in script.infotext_fields] == script.paste_field_names
    assert "Cryptomnesia policy" in script.paste_field_names and gradio[0].about == {
        "open": False,
        "elem_id": "txt2img_cryptomnesia",
    }
    calibrate = next(component for component in gradio if component.kind == "Button")
    assert calibrate.clicked is not None and calibrate.clicked["inputs"][:2] == ["width", "height"]
    assert calibrate.clicked["inputs"][3:] == ["prompt"]


def test_img2img_says_that_it_is_not_applicable(start: Any, gradio: list[Component]):
    assert start("a1111").script.ui(True) == []
    assert "Not applicable" in gradio[1].args[0]


def test_sizes_are_asked_for_where_the_sliders_come_later(start: Any, gradio: list[Component]):
    start("a1111").script.ui(False)
    assert [component.about["label"] for component in gradio if component.kind == "Number"] == [
        "Calibrated width",
        "Calibrated height",
    ]


def test_settings(start: Any, gradio: list[Component]):
    host = start("a1111")
    added: dict[str, Any] = {}
    host.ui.shared.OptionInfo = lambda default, label, component, args, section: (
        default,
        None if args is None else args["choices"],
        section,
    )
    host.ui.shared.opts.add_option = added.__setitem__
    host.callbacks["on_ui_settings"]()
    assert added["cryptomnesia_policy"] == ("off", ["off", "warn", "rewrite", "block"], options.SECTION)
    assert added["cryptomnesia_embed"] == (False, None, options.SECTION)
    host.ui.shared.opts.cryptomnesia_policy = "block"
    host.ui.shared.opts.cryptomnesia_embed = True
    host.ui.shared.opts.cryptomnesia_prompts = "nonsense of an older version"
    assert options.defaults() == Choices(policy="block", embed=True)


def test_what_the_settings_say_holds_where_nothing_else_is_said(start: Any, tmp_path: Any):
    host = start("a1111")
    host.ui.shared.opts.cryptomnesia_policy = "block"
    p = Processing(host, MEMORIZED, tmp_path)
    assert not host.run(p).images and not host.errors


def test_axes_are_added_once_and_decide(start: Any, tmp_path: Any):
    host = start("a1111")
    host.callbacks["on_before_ui"]()  # without X/Y/Z plot nothing happens
    grid: Any = types.ModuleType("xyz_grid")
    grid.AxisOption = lambda label, kind, apply, choices=None: types.SimpleNamespace(label=label, apply=apply)
    grid.axis_options = [types.SimpleNamespace(label="Nothing")]
    host.ui.scripts.scripts_data = [types.SimpleNamespace(module=grid), types.SimpleNamespace(module=options)]
    host.callbacks["on_before_ui"]()
    host.callbacks["on_before_ui"]()
    labels = [option.label for option in grid.axis_options]
    assert labels == ["Nothing", "[Cryptomnesia] policy", "[Cryptomnesia] draws"]
    for value, count in (("block", 0), ("warn", 1), ("bogus", 0)):
        p = Processing(host, MEMORIZED, tmp_path, ({"policy": "off"},))
        grid.axis_options[1].apply(p, value, [value])
        assert len(host.run(p).images) == count and not host.errors
    p = Processing(host, ORDINARY, tmp_path, ({"policy": "block"},))
    grid.axis_options[2].apply(p, 3, [3])
    assert getattr(p, AXES) == {"draws": 3}
    assert not host.run(p).images and "draws" in p.comments[0]


def test_the_button_calibrates_and_goes_on_where_it_was_stopped(start: Any):
    host, size = start("a1111"), 128
    said = []
    for line in calibrating.calibrate(size, size, True):
        said.append(line)
        if "16 of 100" in line:
            assert "stopping" in calibrating.cancel()
    assert "stopped at 16 of 100 prompts" in said[-1] and "rows of the network" in said[1]
    said = list(calibrating.calibrate(float(size), size, True))
    assert not any("16 of 100" in line for line in said) and "100 benign prompts, 1 draw each" in said[-1]
    assert "calibrated for" in list(calibrating.calibrate(size, size, True))[-1]
    made = next(calibration_store.kept())
    assert made.draws == 1 and made.fingerprint == demo_calibration().fingerprint
    assert "no calibration is running" in calibrating.cancel()
    host.ui.shared.sd_model = None
    assert "no model is loaded" in list(calibrating.calibrate(size, size, True))[-1]


def test_loras_of_the_prompt_are_calibrated_with_it(start: Any, monkeypatch: pytest.MonkeyPatch):
    host, done = start("a1111"), []
    networks: Any = types.ModuleType("modules.extra_networks")
    networks.parse_prompts = lambda prompts: (prompts, {"lora": prompts})
    networks.activate = lambda p, data: done.append(("on" if p.scripts is None else "", data))
    networks.deactivate = lambda p, data: done.append(("off", data))
    monkeypatch.setitem(sys.modules, "modules.extra_networks", networks)
    lines = calibrating.calibrate(128, 128, True, f"{ORDINARY} <lora:some:0.5>")
    for line in lines:
        if "of 100 prompts" in line:
            calibrating.cancel()
    data = {"lora": ["<lora:some:0.5>"]}
    assert done == [("on", data), ("off", data)]
    host.model.forge_objects = None
    assert "AUTOMATIC1111 alone" in list(calibrating.calibrate(128, 128, True, "<lora:some:1>"))[-1]


def test_a_calibration_of_another_model_is_no_help(start: Any, tmp_path: Any):
    """A file that was chosen by name must fit."""
    host = start("a1111")
    other = calibration_store.make_folder() / "other.calibration.json"
    demo_calibration().save(other)
    weight = host.pipe.unet.conv_in.weight
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        p = Processing(host, ORDINARY, tmp_path, ({"policy": "block", "calibration": "other.calibration.json"},))
        assert not host.run(p).images and "for another model" in p.comments[0]
    finally:
        with torch.no_grad():
            weight.div_(1.5)
    p = Processing(host, ORDINARY, tmp_path, ({"policy": "block", "calibration": "other.calibration.json"},))
    assert len(host.run(p).images) == 1 and not host.errors
