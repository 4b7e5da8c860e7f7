"""Pieces of prompts that the tests of the nodes share, and any Python value as a node."""

import importlib
import itertools
import zlib
from pathlib import Path
from typing import Any

import torch

from .harness import Comfy
from .models import KINDS, conditioning
from .results import Result, node

MEMORIZED = "the restless beacon of grimsby"
BENIGN = "monkey face on blue"
ENDING = ".calibration.json"
STEPS = {"steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}

values: dict[str, Any] = {}  # what "TestGiven" gives
numbers = itertools.count()


class Given:
    """Any Python value as a node's output."""

    RETURN_TYPES = ("*",)
    FUNCTION = "give"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING",)}}

    def give(self, name: str) -> tuple[Any]:
        return (values[name],)


def given(comfy: Comfy, value: Any) -> dict[str, Any]:
    """A node whose output is the value; a new one each time, so that nothing is remembered."""
    comfy.nodes.NODE_CLASS_MAPPINGS["TestGiven"] = Given
    name = str(next(numbers))
    values[name] = value
    return node("TestGiven", name=name)


def demo(text: str = MEMORIZED, size: int = 64, batch: int = 1) -> dict[str, Any]:
    """The built-in model, its texts and an empty latent."""
    return {
        "load": node("CryptomnesiaLoadDemoModel", checkpoint="final"),
        "text": node("CLIPTextEncode", clip=["load", 1], text=text),
        "empty": node("CLIPTextEncode", clip=["load", 1], text=""),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=batch),
    }


class Texts:
    """Stands for the CLIP of families whose text encoders are too large for tests: another text, other numbers."""

    layer_idx = None

    def __init__(self, kind: str):
        from comfy.model_patcher import ModelPatcher

        self.kind, device = kind, torch.device("cpu")
        self.patcher = ModelPatcher(torch.nn.Identity(), device, device)

    def tokenize(self, text: str) -> int:
        return zlib.crc32(text.encode())

    def encode_from_tokens_scheduled(self, tokens: int) -> list[Any]:
        return conditioning(self.kind, tokens)


def tiny(comfy: Comfy, kind: str, **changes: Any) -> dict[str, Any]:
    """A tiny model of a family, conditionings for it and an empty latent."""
    return {
        "load": node("TestModel", kind=kind, weights=0),
        "text": node("TestConditioning", kind=kind, number=1, **changes),
        "empty": node("TestConditioning", kind=kind, number=0),
        "latent": node("TestLatent", kind=kind),
        **({} if KINDS[kind].clip else {"clip": given(comfy, Texts(kind))}),
    }


def links(prompt: dict[str, Any]) -> dict[str, Any]:
    """What most of the nodes are connected to."""
    clip = ["clip", 0] if "clip" in prompt else ["load", 1]
    return {"model": ["load", 0], "clip": clip, "positive": ["text", 0], "latent": ["latent", 0]}


def ours(comfy: Comfy, which: str, /, **inputs: Any) -> dict[str, Any]:
    """One of the pack's nodes, with the interface's defaults for what is not given."""
    filled = {}
    for key, (kind, options) in (
        comfy.nodes.NODE_CLASS_MAPPINGS[f"Cryptomnesia{which}"].INPUT_TYPES()["required"].items()
    ):
        choices = options.get("options") if isinstance(kind, str) else kind
        if "default" in options or choices:
            filled[key] = options.get("default", choices[0] if choices else None)
    return node(f"Cryptomnesia{which}", **filled | inputs)


def with_check(comfy: Comfy, prompt: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A Memorization Check, and what keeps its output."""
    return {**prompt, "check": ours(comfy, "MemorizationCheck", **links(prompt) | changes), "kept": keep("check")}


def wordless(comfy: Comfy, prompt: dict[str, Any]) -> dict[str, Any]:
    """The empty prompt as a node, in place of a prompt's text."""
    if "clip" not in prompt:
        return node("CLIPTextEncode", clip=["load", 1], text="")
    texts = values[prompt["clip"]["inputs"]["name"]]
    return given(comfy, texts.encode_from_tokens_scheduled(texts.tokenize("")))


def keep(name: str, output: int = 0) -> dict[str, Any]:
    return node("TestKeep", value=[name, output])


def sampler(**changes: Any) -> dict[str, Any]:
    """ComfyUI's KSampler on the prompt's model, texts and latent."""
    own = {"model": ["load", 0], "positive": ["text", 0], "negative": ["empty", 0], "latent_image": ["latent", 0]}
    return node("KSampler", **own | {"seed": 7} | STEPS | changes)


def report_of(comfy: Comfy, prompt: dict[str, Any], name: str = "check", output: int = 0) -> dict[str, Any]:
    """The report that the prompt's check gives; the run must go well."""
    return ran(comfy, prompt).outputs[name][output]


def ran(comfy: Comfy, prompt: dict[str, Any], **options: Any) -> Result:
    result = comfy.run(prompt, **options)
    assert result.ok, result.error
    return result


def complaint(comfy: Comfy, prompt: dict[str, Any]) -> str:
    """The one line that a run fails with."""
    error = comfy.run(prompt).error
    assert error is not None and "\n" not in error and "Traceback" not in error, error
    return error


def part(comfy: Comfy, name: str) -> Any:
    """A module of the pack as ComfyUI has loaded it, e.g. guard.files; not the installed library's."""
    root = comfy.nodes.NODE_CLASS_MAPPINGS["CryptomnesiaLoadDemoModel"].__module__.rsplit(".nodes.", 1)[0]
    return importlib.import_module(f"{root}.{name}")


def calibrations(comfy: Comfy) -> Path:
    """ComfyUI's folder of calibrations."""
    return Path(comfy.folder_paths.models_dir) / "cryptomnesia"
