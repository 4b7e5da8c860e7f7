"""Workflows that save an image with its provenance, and what the sidecar then tells."""

from pathlib import Path
from typing import Any

from cryptomnesia.sidecar import read_statement, sidecar_path

from .graphs import BENIGN, demo, ours, ran, sampler
from .harness import Comfy
from .results import node

OTHER = "a cat on a roof"
AGAINST = "blurry"


def words(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", clip=["load", 1], text=text)


def saved(comfy: Comfy, prompt: dict[str, Any], latent: str = "sampler", **changes: Any) -> dict[str, Any]:
    return {
        "sampler": sampler(),
        "decode": node("VAEDecode", samples=[latent, 0], vae=["load", 2]),
        "save": ours(comfy, "SaveImage", images=["decode", 0], filename_prefix="made", **changes),
    } | prompt


def told(output: Path, name: str = "made_00001_.png") -> dict[str, Any]:
    return read_statement(sidecar_path(output / name))["predicate"]


def texts(comfy: Comfy, output: Path, prompt: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    """The prompt and the negative one that the sidecar tells."""
    ran(comfy, saved(comfy, prompt, **changes))
    said = told(output)["prompt"]
    return said["original"], said["negative"]


def against(text: str = AGAINST) -> dict[str, Any]:
    """The built-in model with another negative prompt."""
    return demo(BENIGN) | {"empty": words(text)}
