"""What makes a ComfyUI model the model it is: weights as loaded from disk, and what was patched onto them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoiser import fingerprint
from .contents import Contents
from .unread_weights import is_read

# by construction these act on what both branches have answered, beside them, or where an image is painted over
_BESIDE = frozenset(
    {
        "sampler_cfg_function",
        "sampler_pre_cfg_function",
        "sampler_post_cfg_function",
        "disable_cfg1_optimization",
        "denoise_mask_function",
        "predict_noise",  # a wrapper around all of the above
        "multigpu",  # copies of the model itself
        "multigpu_clones",
        "multigpu_options",
        "lora_metadata",
    }
)
_PLACES = ("wrappers", "callbacks", "injections", "additional_models", "attachments", "weight_wrapper_patches")
_OWN = ("hook_ref", "hook_id", "hook_keyframe", "need_weight_init", "custom_should_register")  # of a hook's bookkeeping
_COMPILED = "torch.compile"  # computes the same, up to rounding; its settings stand in the options


def weights_and_patches(patcher: Any, prefix: str) -> tuple[list[Tensor], list[str]]:
    """Returns the weights whose names start with the prefix, as they were before any patch, and the patches of weights.

    Each patch is told with its strengths and a digest of its tensors.
    """
    weights = [entry[0][0] for name, entry in patcher.get_key_patches(prefix).items() if is_read(name, entry[0][0])]
    contents = Contents()
    described = [
        f"{name} {strength!r} {contents.digest([value, strength_model, *where])}"
        for name, patches in sorted(patcher.patches.items())
        for strength, value, strength_model, *where in patches
        if not _is_idle(strength, value, strength_model)
    ]
    return weights, described


def patches_of(model: Any, hooks: Sequence[Any] = ()) -> tuple[list[str], list[str]]:
    """Returns what else changes the answers of a MODEL, or of a CLIP's patcher.

    That is patches of objects and of attention, wrappers, injections and hooks. What only acts on the answers, such as
    RescaleCFG or PAG, is not among them.

    Args:
        model: A ModelPatcher.
        hooks: HookGroups of a conditioning.

    Returns:
        A text for each, with a digest of all that it holds; and the names of those that cannot be read, whose texts
        are never the same twice.
    """
    found: list[str] = []
    unreadable: list[str] = []
    contents = Contents(_special(model))
    for name, value in _parts(model, hooks):
        found.append(f"{name} {contents.digest(value)}")
        unreadable += [f"{name} ({kind})" for kind in contents.unreadable]
        contents.unreadable.clear()
    return sorted(found), unreadable


def _parts(model: Any, hooks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """By name each thing that is patched, nested ones apart."""
    options = dict(model.model_options)
    transformer = dict(options.pop("transformer_options", {}))
    places = {name: getattr(model, name, None) for name in _PLACES}
    nested = {**places, "transformer": transformer, "options": options}
    for name, value in model.object_patches.items():
        if not (name == "manual_cast_dtype" and model.is_clip and value == torch.float32):  # every CLIP has it
            yield f"object {name}", value
    for place, values in nested.items():
        yield from _nested(place, values)
    for name, module in model.model.named_modules():
        held = vars(module)
        for hook in (*held["_forward_pre_hooks"].values(), *held["_forward_hooks"].values()):
            yield f"module {name} hook", hook
        if "forward" in held:
            yield f"module {name} forward", held["forward"]
    for group in [getattr(model, "forced_hooks", None), *hooks]:
        for hook in getattr(group, "hooks", ()):
            yield f"hook {type(hook).__name__}", _hook(hook)


def _nested(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of dicts and lists, without what acts beside the branches."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in _BESIDE and key != _COMPILED:
                yield from _nested(f"{name} {key}", part)
    elif isinstance(value, list):
        for part in value:
            yield from _nested(name, part)
    elif value is not None:
        yield name, value


def _hook(hook: Any) -> dict[str, Any]:
    """A hook of a conditioning by what it does; its weights are renamed at first use."""
    held = {name: value for name, value in vars(hook).items() if name not in _OWN}
    for name in ("weights", "weights_clip"):
        if isinstance(held.get(name), dict):
            held[name] = sorted(Contents().digest(tensor) for tensor in _tensors(list(held[name].values())))
    times = [(frame.strength, frame.start_percent) for frame in hook.hook_keyframe.keyframes]
    return {**held, "keyframes": times}


def _special(model: Any) -> Callable[[Any], str | None]:
    """Names the model and its modules, where a patch refers to them, and reads other models by their weights."""
    own = {id(module): f"module {name}" for name, module in model.model.named_modules()}
    for name, patch in model.object_patches.items():  # in the model's place for it once the model is loaded
        if isinstance(patch, torch.nn.Module):
            for module in patch.modules():
                if own.get(id(module), "").startswith(f"module {name}"):
                    del own[id(module)]
        original = model.object_patches_backup.get(name)
        if isinstance(original, torch.nn.Module):
            own |= {id(module): f"module {name}{'.' * bool(part)}{part}" for part, module in original.named_modules()}

    def special(value: Any) -> str | None:
        if id(value) in own:
            return own[id(value)]
        if not (hasattr(value, "get_key_patches") and hasattr(value, "model_options")):
            return None
        if value.model is model.model:
            return "this model"
        weights, patches = weights_and_patches(value, "")
        return fingerprint(weights, type(value.model).__name__, patches, patches_of(value)[0])

    return special


def _is_idle(strength: float, value: Any, strength_model: float) -> bool:
    """A LoRA of strength 0; values that are set outright have no strength."""
    outright = isinstance(value, tuple) and value[:1] == ("set",)
    return strength == 0 and strength_model == 1 and not outright


def _tensors(value: Any) -> list[Tensor]:
    """Of a patch, in whatever form ComfyUI keeps it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    weights = getattr(value, "weights", None)
    return [] if weights is None else _tensors(weights)
