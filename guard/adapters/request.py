"""The request that a pipeline's call makes, and how to make it again with other embeddings or noise."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NotApplicable
from .pipeline_call import starts_from_image

_CHANGES_THE_MODEL = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
_CHANGES_THE_TEXT = ("system_prompt", "complex_human_instruction")  # with which prompts are read
_READS_OTHERWISE = ("clip_skip", "caption_upsample_temperature", "text_encoder_out_layers")


@dataclass(frozen=True)
class Request:
    """One call of a pipeline.

    Attributes:
        arguments: The call's arguments by name, defaults left out.
        prompts: One for each image, or None where embeddings were given in place of text.
        numbers: (B,) which of the prompts each image belongs to.
    """

    arguments: dict[str, Any]
    prompts: list[str | None]
    numbers: list[int]

    @staticmethod
    def read(call: Callable[..., Any], pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Request":
        """Reads the arguments of a call. Raises TypeError, as the pipeline would, if they do not fit its signature."""
        bound = inspect.signature(call).bind(pipe, *args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.pop(next(iter(bound.signature.parameters)))
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name, {})
        given = arguments.get("prompt")
        if given is None:
            embeddings = arguments.get("prompt_embeds", arguments.get("pooled_prompt_embeds"))
            rows = len(embeddings) if isinstance(embeddings, Tensor | list | tuple) else 1
            texts: list[str | None] = [None] * rows
        else:
            texts = [given] if isinstance(given, str) else list(given)
        each = arguments.get("num_images_per_prompt") or 1
        numbers = [i for i in range(len(texts)) for _ in range(each)]
        return Request(arguments, [texts[i] for i in numbers], numbers)

    @property
    def images(self) -> int:
        """The number of images that the call is to make."""
        return len(self.numbers)

    @property
    def has_callback(self) -> bool:
        """Whether a callback of the user's runs between the steps."""
        return any(self.arguments.get(name) is not None for name in ("callback_on_step_end", "callback"))

    def require_pure_noise(self, call: Callable[..., Any]) -> None:
        """Raises NotApplicable, saying why, where the call cannot be judged from pure noise and prompts alone."""
        if starts_from_image(call):
            raise NotApplicable("this pipeline starts from an image, not from pure noise: a check says nothing there")
        if any(self.arguments.get(name) is not None for name in ("ip_adapter_image", "ip_adapter_image_embeds")):
            raise NotApplicable("an image prompt (IP-Adapter) takes part: the check knows text prompts only")
        for name in _CHANGES_THE_MODEL:
            if self.arguments.get(name):
                raise NotApplicable(f"{name} makes another model for this call: use pipe.set_adapters(...) instead")

    def require_rewritable(self, image: int) -> str:
        """Returns the prompt of an image. Raises NotApplicable where a rewritten one cannot take its place."""
        prompt = self.prompts[image]
        if prompt is None:
            raise NotApplicable("embeddings were given in place of a prompt: there is no text to rewrite")
        for name in ("prompt_2", "prompt_3"):
            if self.arguments.get(name) not in (None, self.arguments.get("prompt")):
                raise NotApplicable(f"{name} is another text than the prompt: only one text can be rewritten")
        for name in _CHANGES_THE_TEXT:
            if name in self.arguments:
                raise NotApplicable(f"{name} is set: a rewritten prompt would be read differently from what was tested")
        for name in _READS_OTHERWISE:
            if self.arguments.get(name):
                raise NotApplicable(f"{name} is set: a rewritten prompt would be read differently from what was tested")
        return prompt

    def with_noise(self, noise: Tensor) -> dict[str, Any]:
        """Returns the arguments with the initial noise (B, C, H, W) given."""
        return self.arguments | {"latents": noise}


def embedded(arguments: Mapping[str, Any], embeddings: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Returns the arguments of a pipeline's call with embeddings in place of the texts that they stand for.

    Args:
        arguments: The arguments by name.
        embeddings: What `PipelineDenoiser.as_arguments` gave; where it has no negative ones, the negative prompt stays.
        known: The names of all arguments that the call can be given; others are left out.
    """
    texts = ["prompt", "prompt_2", "prompt_3", "prompt_4"]
    if any(name.startswith("negative_") for name in embeddings):
        texts += [f"negative_{name}" for name in texts]
    changed = {name: value for name, value in arguments.items() if name not in texts}
    changed["num_images_per_prompt"] = 1
    if not any(name.startswith("negative_") for name in changed):
        changed["negative_prompt"] = None  # PixArt's own default, "", would clash with the embeddings
    return {name: value for name, value in (changed | dict(embeddings)).items() if name in known}


def without_shared_lists(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call with lists of their own: some pipelines write into the prompts they are given."""
    return {name: list(value) if type(value) is list else value for name, value in arguments.items()}


class RandomState:
    """The random generators that a call draws from, to be put back before it is made again."""

    def __init__(self, generator: Any, device: torch.device):
        given = generator if isinstance(generator, list | tuple) else [] if generator is None else [generator]
        self._states = [(g, g.get_state()) for g in given]
        self._cpu = torch.get_rng_state()
        self._cuda = (device, torch.cuda.get_rng_state(device)) if device.type == "cuda" else None

    def restore(self) -> None:
        """Puts the random states back to what they were when this was made."""
        for generator, state in self._states:
            generator.set_state(state)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda[1], self._cuda[0])
