"""What the extension shows in txt2img and img2img. Labels stay as they are: translations hang on them."""

from importlib import import_module
from typing import Any

from . import calibrating, options, telling
from .choices import AUTOMATIC, MOST_DRAWS, NONE, POLICIES, PROMPTS, UNVERIFIED

TITLE = "Cryptomnesia"
NOT_HERE = (
    "<p>Not applicable: img2img starts from an image, not from pure noise, so that a check says nothing here. Images "
    "are made as without the extension.</p>"
)
HELP = (
    "<p>Checks, before an image is sampled, whether the model is about to reproduce its training data. Verdicts need a "
    "calibration of the model as it is loaded; without one there is a score only.</p>"
)
SIZES: dict[str, Any] = {}  # the tab's own sliders, by name, and its prompt


def note_size(component: Any, elem_id: Any) -> None:
    """Remembers what a calibration is made for: the sliders of the image's size, and the prompt for its LoRAs."""
    if elem_id in ("txt2img_width", "txt2img_height", "txt2img_prompt"):
        SIZES[str(elem_id).removeprefix("txt2img_")] = component


def build(img2img: bool) -> tuple[list[Any], list[tuple[Any, str]]]:
    """Builds the accordion.

    Returns:
        The components whose values hooks are given, in the order of `Choices`; and with each the infotext's key that is
        pasted into it.
    """
    gr: Any = import_module("gradio")
    tab, chosen = "img2img" if img2img else "txt2img", options.defaults()
    with gr.Accordion(TITLE, open=False, elem_id=f"{tab}_cryptomnesia"):
        if img2img:
            gr.HTML(NOT_HERE)
            return [], []
        gr.HTML(HELP)
        named = {"elem_id": f"{tab}_cryptomnesia_policy"}
        policy = gr.Radio(list(POLICIES), value=chosen.policy, label="Policy", **named)
        with gr.Row():
            unverified = gr.Dropdown(
                list(UNVERIFIED),
                value=chosen.unverified,
                label="Images that could not be checked",
                elem_id=f"{tab}_cryptomnesia_unverified",
            )
            calibration = gr.Dropdown(
                [AUTOMATIC, NONE, *_files()],
                value=AUTOMATIC,
                label="Calibration",
                elem_id=f"{tab}_cryptomnesia_calibration",
            )
        with gr.Row():
            draws = gr.Slider(
                minimum=0,
                maximum=MOST_DRAWS // 4,
                step=1,
                value=0,
                label="Draws (0: as calibrated)",
                elem_id=f"{tab}_cryptomnesia_draws",
            )
            prompts = gr.Dropdown(
                list(PROMPTS),
                value=chosen.prompts,
                label="Prompts in the provenance file",
                elem_id=f"{tab}_cryptomnesia_prompts",
            )
        _calibration_row(gr, tab)
    keys = (telling.POLICY_KEY, telling.UNVERIFIED_KEY, telling.DRAWS_KEY)
    fields: list[tuple[Any, str]] = list(zip((policy, unverified, draws), keys, strict=True))
    return [policy, unverified, draws, calibration, prompts], fields


def _calibration_row(gr: Any, tab: str) -> None:
    with gr.Row():
        quick = gr.Checkbox(False, label="Quick calibration", elem_id=f"{tab}_cryptomnesia_quick")
        start = gr.Button("Calibrate the loaded model", elem_id=f"{tab}_cryptomnesia_calibrate")
        stop = gr.Button("Stop calibrating", elem_id=f"{tab}_cryptomnesia_cancel")
    prompt = [SIZES["prompt"]] if "prompt" in SIZES else []
    if "width" in SIZES and "height" in SIZES:
        sizes = [SIZES["width"], SIZES["height"]]
    else:
        with gr.Row():
            sizes = [gr.Number(512, label=f"Calibrated {name}", precision=0) for name in ("width", "height")]
    state = gr.HTML("", elem_id=f"{tab}_cryptomnesia_state")
    start.click(fn=calibrating.calibrate, inputs=[*sizes, quick, *prompt], outputs=[state], show_progress=False)
    stop.click(fn=calibrating.cancel, inputs=[], outputs=[state], show_progress=False, queue=False)


def _files() -> list[str]:
    """The names of the calibrations that are kept."""
    from cryptomnesia import calibration_store

    try:
        found = [path.name for path in calibration_store.folder().iterdir()]
    except OSError:  # there is none yet
        return []
    return sorted(name for name in found if name.endswith(calibration_store.ENDING))
