"""Inputs that several nodes share, with their tooltips."""

from typing import Any

from comfy_api.latest import io

from . import calibrations, guarding

MOST = 2**64  # seeds are smaller
FLAGGED, ALWAYS, OFF = "flagged", "always", "off"


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


def noise_seed(tooltip: str) -> Any:
    """Returns an input for the seed of an image's noise, which the interface may change after every run."""
    return io.Int.Input("noise_seed", default=0, min=0, max=MOST - 1, control_after_generate=True, tooltip=tooltip)


def cfg() -> Any:
    """Returns an input for the guidance scale, as ComfyUI's samplers have it."""
    return io.Float.Input(
        "cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="The guidance scale, as in KSampler."
    )


def policy() -> Any:
    """Returns an input for what a guard in front of a sampler does."""
    return io.Combo.Input(
        "policy",
        options=list(guarding.POLICIES),
        tooltip="About prompts that are likely memorized. warn: make the image, and say so. block: make none, and skip "
        "what hangs on it. rewrite: change as few words as will do. embed: keep the words, move their embedding. off: "
        "the same as without a guard, bit for bit.",
    )


def unverified() -> Any:
    """Returns an input for what a guard does where there is no verdict."""
    return io.Combo.Input(
        "unverified",
        options=list(guarding.UNVERIFIED),
        tooltip="What becomes of an image that could not be checked, for want of a calibration, say. As the policy "
        "says: stopped under block, else made with a warning.",
    )


def fallback() -> Any:
    """Returns an input for what a guard does where mitigating did not help."""
    return io.Combo.Input(
        "fallback",
        options=list(guarding.FALLBACK),
        tooltip="What becomes of an image whose prompt is still likely memorized after rewrite or embed.",
    )


def when(*, off: bool = False) -> Any:
    """Returns an input that says whether to change what is not flagged, too; with `off` also whether to do nothing."""
    return io.Combo.Input(
        "when",
        options=[FLAGGED, ALWAYS, *([OFF] if off else [])],
        tooltip="flagged: what is not memorized passes unchanged."
        + (" off: all passes unchanged, and nothing is measured." if off else ""),
    )
