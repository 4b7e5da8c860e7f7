"""How a pipeline is told how strongly to follow the prompt, and what to stay away from.

Most take `guidance_scale`. Flux and its kin take two: distilled networks are told their guidance as a number,
`guidance_scale`, which all others ignore; those are guided by asking twice, `true_cfg_scale`, and only if a negative
prompt is given. HunyuanImage's distilled network is told `distilled_guidance_scale`; the other is guided by a part of
the pipeline, its guider. Some distilled ones ignore whatever they are told. Z-Image counts from zero: a scale of 1
guides it, 0 does not.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import InputError

NEGATIVE = "negative_prompt"
PLAIN, TWICE, TOLD = "guidance_scale", "true_cfg_scale", "distilled_guidance_scale"
_FROM_ZERO = ("ZImagePipeline",)


def guidance_name(pipe: Any, known: Mapping[str, Any]) -> str:
    """Returns what this pipeline calls its guidance.

    Args:
        pipe: A diffusers text-to-image pipeline.
        known: The parameters of its call, as `inspect.signature` gives them.
    """
    if TOLD in known and _is_told(pipe):
        return TOLD
    return PLAIN if TWICE not in known or _is_told(pipe) else TWICE


def own_guidance(pipe: Any, known: Mapping[str, Any]) -> float:
    """Returns the pipeline's default guidance scale. Raises InputError if it knows no guidance."""
    if _ignores(pipe):
        return 1.0
    if _by_guider(pipe, known):
        guider = pipe.guider
        return float(guider.guidance_scale) if guider is not None and guider._enabled else 1.0
    return known[_required(pipe, known)].default


def guidance_arguments(
    pipe: Any, known: Mapping[str, Any], guidance: float | None, negative: str = "", *, prompts: int | None = None
) -> dict[str, Any]:
    """Returns the arguments that set the guidance of a call, by name.

    Args:
        pipe, known: What `guidance_name` takes.
        guidance: The scale, 1 or less for none; None for the pipeline's own.
        negative: What to stay away from.
        prompts: The number of prompts where the call is given a list; a negative prompt is needed for each.

    Raises:
        InputError: It knows no guidance, or can be told no negative prompt.
    """
    if guidance is None and not negative:
        return {}
    name = PLAIN if _by_guider(pipe, known) and guidance is None else _required(pipe, known)
    if negative and _is_told(pipe):
        raise InputError(f"this {type(pipe).__name__} is told its guidance as a number: leave out the negative prompt")
    if negative and NEGATIVE not in known:
        raise InputError(f"{type(pipe).__name__} can be told no negative prompt: leave it out")
    if guidance is not None and guidance > 1 and _ignores(pipe):
        raise InputError(f"this {type(pipe).__name__} was distilled and ignores a guidance scale: leave it out")
    if guidance is not None and guidance <= 1 and any(base.__name__ in _FROM_ZERO for base in type(pipe).__mro__):
        guidance = 0.0
    arguments: dict[str, Any] = {} if guidance is None else {name: guidance}
    if negative or name == TWICE:
        arguments[NEGATIVE] = negative if prompts is None else [negative] * prompts
    return arguments


def _required(pipe: Any, known: Mapping[str, Any]) -> str:
    name = guidance_name(pipe, known)
    if _by_guider(pipe, known):
        raise InputError(
            f"{type(pipe).__name__} keeps its guidance in its guider: leave it out here, and set pipe.guider to another"
        )
    if name not in known:
        raise InputError(f"{type(pipe).__name__} can be told no guidance: leave it out")
    return name


def _is_told(pipe: Any) -> bool:
    """Whether its network was distilled to be told a guidance."""
    transformer, unet = (getattr(getattr(pipe, part, None), "config", {}) for part in ("transformer", "unet"))
    return bool(transformer.get("guidance_embeds", False)) or unet.get("time_cond_proj_dim") is not None


def _by_guider(pipe: Any, known: Mapping[str, Any]) -> bool:
    """Whether a part of the pipeline guides, whatever its call is given."""
    return hasattr(pipe, "guider") and guidance_name(pipe, known) not in known


def _ignores(pipe: Any) -> bool:
    """Whether its network was distilled for a guidance of its own."""
    return bool(getattr(pipe, "config", {}).get("is_distilled", False))
