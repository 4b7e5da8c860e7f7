"""Inputs that several nodes share, with their tooltips."""

from typing import Any

from comfy_api.latest import io

from . import calibrations

MOST = 2**64  # seeds are smaller


def model() -> Any:
    """Returns an input for the MODEL to ask."""
    return io.Model.Input("model", tooltip="The model that will sample, with its LoRAs.")


def clip() -> Any:
    """Returns an input for the model's CLIP, which reads the empty prompt, too."""
    return io.Clip.Input("clip", tooltip="The CLIP that belongs to the model; a check needs the empty prompt, too.")


def positive() -> Any:
    """Returns an input for the encoded prompt."""
    return io.Conditioning.Input("positive", tooltip="The prompt as the sampler gets it.")


def latent() -> Any:
    """Returns an input for the latent that sampling starts from."""
    return io.Latent.Input("latent", tooltip="The empty latent that sampling starts from; only its size counts.")


def draws() -> Any:
    """Returns an input for the noise draws of a check or a calibration."""
    return io.Int.Input(
        "draws", default=4, min=1, max=64, tooltip="Noise draws per prompt; a check needs as many as its calibration."
    )


def check_seed() -> Any:
    """Returns an input for a node's own seed. Not named `seed`: the interface would change it after every run."""
    return io.Int.Input(
        "check_seed",
        default=0,
        min=0,
        max=MOST - 1,
        tooltip="Seed of this node's own noise, which is not the noise of the image.",
    )


def alpha(default: float, tooltip: str) -> Any:
    """Returns an input for a share of false answers that is promised not to be exceeded."""
    return io.Float.Input("alpha", default=default, min=0.001, max=0.5, step=0.001, tooltip=tooltip)


def calibration(*, optional: bool = True) -> Any:
    """Returns an input for a calibration file; "none" is offered only where a node can do without."""
    return io.Combo.Input(
        "calibration",
        options=calibrations.choices(optional=optional),
        tooltip="What benign prompts score on this model, from Calibrate Model. automatic: whichever file in "
        "models/cryptomnesia was made for this model, size and number of draws; the built-in model brings its own.",
    )


def when() -> Any:
    """Returns an input that says whether to change what is not flagged, too."""
    return io.Combo.Input(
        "when", options=["flagged", "always"], tooltip="flagged: what is not memorized passes unchanged."
    )
