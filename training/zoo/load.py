"""Opens a model of the zoo as a diffusers pipeline."""

from typing import Any

from safetensors.torch import load_file

from cryptomnesia import load_demo
from cryptomnesia.errors import InputError

from . import lora
from .members import WEIGHTS, Member, member


def load_unet(who: Member, strength: float = 1.0) -> Any:
    """Its UNet in float32, with a LoRA merged at some strength. Raises InputError if its weights are not there."""
    if who.how == "shipped":
        return load_demo("final" if who.name == "base" else "early").unet
    place = WEIGHTS / who.name
    if not place.exists():
        raise InputError(f"the zoo's {who.name} is not there: run `python -m training.zoo WORK`")
    if who.how == "lora":
        network = load_unet(member(who.parent or "base"))
        lora.merge(network, load_file(place / "lora.safetensors"), strength)
        return network
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(place / "unet").float()


def load_model(name: str, strength: float = 1.0) -> Any:
    """A StableDiffusionPipeline, 64x64 pixels, float32, on the CPU; a LoRA at some strength."""
    who = member(name)
    if who.how == "shipped":
        return load_demo("final" if name == "base" else "early")
    pipe = load_demo()
    pipe.unet = load_unet(who, strength).eval()
    if who.target != "epsilon":
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=who.target)
    return pipe
