"""What a guarded call tells about the images that it makes, for their provenance. What is not sure is left unknown."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..adapters.about import scheduler_of
from ..adapters.request import Request
from ..report import CallReport

_RENAMED = {"num_inference_steps": "steps"}
_BY_DEFAULT = (
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "distilled_guidance_scale",
)  # told even where they were not given
_LEFT_OUT = ("num_images_per_prompt", "return_dict", "clean_caption", "callback_steps", "use_resolution_binning")
RESEEDED = "the guard chose another initial noise"


def facts_of(call: Callable[..., Any], pipe: Any, request: Request) -> list[CallReport]:
    """Returns one call report per image; to be called before the call, while its generators are as they were given."""
    settings = _settings(call, request)
    scheduler = scheduler_of(pipe)
    reports = []
    for image in range(request.images):
        seed, why, more = _seed(request, image)
        negative, unknown = _negative(request, image)
        reports.append(CallReport(seed, why, negative, scheduler, settings | more | unknown))
    return reports


def reseeded(facts: CallReport) -> CallReport:
    """Returns the same report for an image whose noise the guard chose."""
    return replace(facts, seed=None, no_seed=RESEEDED)


def _settings(call: Callable[..., Any], request: Request) -> dict[str, Any]:
    """Numbers and switches; texts are prompts, and tensors and objects say nothing in a word."""
    parameters = inspect.signature(call).parameters
    defaults = {name: parameters[name].default for name in _BY_DEFAULT if name in parameters}
    settings: dict[str, Any] = {
        _RENAMED.get(name, name): value
        for name, value in (defaults | request.arguments).items()
        if isinstance(value, bool | int | float) and name not in _LEFT_OUT
    }
    for name in ("timesteps", "sigmas"):  # they take the place of a number of steps
        if request.arguments.get(name) is not None:
            settings["steps"] = len(request.arguments[name])
            settings[name] = "given"
    second = [name for name in ("prompt_2", "prompt_3") if request.arguments.get(name) is not None]
    if second:
        settings["further_prompts"] = f"{', '.join(second)}: not recorded"
    return settings


def _seed(request: Request, image: int) -> tuple[int | None, str | None, dict[str, Any]]:
    """The seed that makes the image again, or why there is none, and which of its images it was."""
    given = request.arguments.get("generator")
    if request.arguments.get("latents") is not None:
        return None, "latents were given", {}
    if given is None:
        return None, "no generator was given, so that the noise depends on all that was drawn before", {}
    generators = list(given) if isinstance(given, list | tuple) else [given]
    if len(generators) not in (1, request.images):
        return None, "there are not as many generators as images", {}
    generator = generators[image % len(generators)]
    if len(generators) > 1 and any(other is generator for other in generators[:image]):
        return None, "the generator was shared with another image", {}
    seed = generator.initial_seed()
    if not torch.equal(torch.Generator(generator.device).manual_seed(seed).get_state(), generator.get_state()):
        return None, "the generator had been used before", {}
    shared = len(generators) < request.images
    return seed, None, {"image_of_seed": f"{image + 1} of {request.images}"} if shared else {}


def _negative(request: Request, image: int) -> tuple[str | None, dict[str, Any]]:
    given = request.arguments.get("negative_prompt")
    if request.arguments.get("negative_prompt_embeds") is not None:
        return None, {"negative": "given as embeddings: not recorded"}
    if isinstance(given, list | tuple):
        given = given[request.numbers[image]] if len(given) > request.numbers[image] else None
    return given if isinstance(given, str) else None, {}
