"""The built-in model: small, real, and with some of its training images memorized; see weights/README.md."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError, require

if TYPE_CHECKING:
    from ..calibration import Calibration

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINTS = ("final", "early")


def load_demo(checkpoint: Literal["final", "early"] = "final") -> Any:
    """Returns the built-in StableDiffusionPipeline, 64x64 pixels, float32, on the CPU.

    Args:
        checkpoint: "final", or "early": the same training before it had memorized anything.

    Raises:
        InputError: Unknown checkpoint.
        MissingPackage: diffusers or transformers is not installed.
    """
    if checkpoint not in CHECKPOINTS:
        raise InputError(
            f"unknown checkpoint {checkpoint!r} of the built-in model: use one of {', '.join(CHECKPOINTS)}"
        )
    pipe = load_folder(WEIGHTS, WEIGHTS if checkpoint == "final" else WEIGHTS / "early")
    # what provenance files call it; its folder's name says nothing
    pipe.register_to_config(_name_or_path="cryptomnesia-demo" + ("" if checkpoint == "final" else f"-{checkpoint}"))
    return pipe


def load_folder(base: Path, trained: Path) -> Any:
    """Returns a pipeline with autoencoder and tokenizer of `base`, UNet and text encoder of `trained`."""
    from ..adapters.quiet import quietly

    with quietly():
        diffusers, transformers = require("diffusers", "diffusers"), require("transformers", "diffusers")
        options = {"local_files_only": True, "use_safetensors": True}
        parts = {}
        if trained != base:
            parts["unet"] = diffusers.UNet2DConditionModel.from_pretrained(trained / "unet", **options)
            encoder = transformers.CLIPTextModel.from_pretrained(trained / "text_encoder", local_files_only=True)
            parts["text_encoder"] = encoder.float()
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None, **options, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def demo_calibration() -> "Calibration":
    """Returns the built-in model's calibration, on captions that no evaluation uses."""
    from ..calibration import Calibration
    from ..calibration_store import BUILT_IN

    return Calibration.load(BUILT_IN)
