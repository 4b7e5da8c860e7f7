"""Opens a model of the zoo as a diffusers pipeline."""

from typing import Any

from safetensors.torch import load_file

from cryptomnesia import load_demo
from cryptomnesia.errors import InputError

from . import lora
from .members import WEIGHTS, Member, member


def load_unet(model: Member, strength: float = 1.0) -> Any:
    """Returns a model's UNet in float32, with its LoRA merged at a strength.

    Raises:
        InputError: The model's weights are not in the zoo's folder.
    """
    if model.how == "shipped":
        return load_demo("final" if model.name == "base" else "early").unet
    folder = WEIGHTS / model.name
    if not folder.exists():
        raise InputError(f"the zoo's {model.name} is not there: run `python -m training.zoo WORK`")
    if model.how == "lora":
        network = load_unet(member(model.parent or "base"))
        lora.merge(network, load_file(folder / "lora.safetensors"), strength)
        return network
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder / "unet").float()


def load_model(name: str, strength: float = 1.0) -> Any:
    """Returns a StableDiffusionPipeline, 64x64 pixels, float32, on the CPU; a LoRA counts with its strength."""
    model = member(name)
    if model.how == "shipped":
        return load_demo("final" if name == "base" else "early")
    pipe = load_demo()
    pipe.unet = load_unet(model, strength).eval()
    if model.target != "epsilon":
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=model.target)
    return pipe
