"""The extension's section in the web UI's settings, and its axes of X/Y/Z plot."""

import logging
from importlib import import_module
from typing import Any

from cryptomnesia.errors import InputError

from .choices import AXES, POLICIES, PROMPTS, UNVERIFIED, Choices
from .models import ui

SECTION = ("cryptomnesia", "Cryptomnesia")
# name of the choice -> (the setting's key, label, what else may be chosen)
SETTINGS = {
    "policy": ("cryptomnesia_policy", "Policy that the accordion starts with", POLICIES),
    "unverified": ("cryptomnesia_unverified", "Images that could not be checked", UNVERIFIED),
    "prompts": ("cryptomnesia_prompts", "Prompts in the provenance file beside each image", PROMPTS),
    "fallback": ("cryptomnesia_fallback", "Where a rewritten prompt is still memorized", ("warn", "block")),
    "embed": ("cryptomnesia_embed", "Put the provenance into the image's own file, too", (False, True)),
}


def defaults() -> Choices:
    """Returns what the settings say; what cannot be read there is as it comes."""
    opts = ui("shared").opts
    chosen: dict[str, Any] = {name: getattr(opts, key, None) for name, (key, _, _) in SETTINGS.items()}
    return Choices(**{name: value for name, value in chosen.items() if value in SETTINGS[name][2]})


def register() -> None:
    """Adds the section (on_ui_settings)."""
    gradio = import_module("gradio")
    shared, fresh = ui("shared"), Choices()
    for name, (key, label, allowed) in SETTINGS.items():
        first = getattr(fresh, name)
        shown = (gradio.Checkbox, None) if isinstance(first, bool) else (gradio.Radio, {"choices": list(allowed)})
        shared.opts.add_option(key, shared.OptionInfo(first, label, *shown, section=SECTION))


def add_axes() -> None:
    """Adds axes to X/Y/Z plot (on_before_ui), once, and does nothing where there is none."""
    for module in _grids():
        labels = [option.label for option in module.axis_options]
        for name, kind, choices in (("policy", str, lambda: list(POLICIES)), ("draws", int, None)):
            label = f"[Cryptomnesia] {name}"
            if label not in labels:
                module.axis_options.append(module.AxisOption(label, kind, _setter(name), choices=choices))


def _grids() -> list[Any]:
    """The modules of X/Y/Z plot that are loaded; there may be one of each tab."""
    found = []
    for data in getattr(ui("scripts"), "scripts_data", ()):
        module = data.module
        if hasattr(module, "axis_options") and hasattr(module, "AxisOption") and module not in found:
            found.append(module)
    return found


def _setter(name: str) -> Any:
    def apply(p: Any, value: Any, values: Any) -> None:
        given = getattr(p, AXES, {}) | {name: value}
        try:
            Choices.of([], Choices(), given)
        except InputError as error:
            logging.getLogger(__name__).warning("Cryptomnesia: %s", error)
        setattr(p, AXES, given)  # a value that is none lets nothing out, and says why

    return apply
