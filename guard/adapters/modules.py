"""What a network of torch is at run time: which of its weights answer, and what else makes it answer as it does.

A network is compared with one that is freshly made of its own configuration: classes, attributes, attention
processors, hooks. What differs is named, so that whatever nobody thought of makes another model; what is known to leave
answers as they are (offloading, slices, fused projections, idle LoRAs), or those to a first step (caches), is passed
over.
"""

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from ..identity import describe, fingerprint, inner_tensors, origin
from .offloaded import Reader, here, hooks_of, state_of
from .plain_calls import is_cache

_TRUSTED = {"torch", "diffusers", "transformers", "accelerate", "peft", "cryptomnesia"}
_ROUTINES = FunctionType | BuiltinFunctionType | MethodType
_HARMLESS = {"training", "gradient_checkpointing", "fused_projections"}
# processors that compute one thing in several ways
_SAME = {
    *("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor", "AttnProcessorNPU"),
    *("FusedAttnProcessor2_0", "JointAttnProcessor2_0", "FusedJointAttnProcessor2_0", "XFormersJointAttnProcessor"),
    *("FluxAttnProcessor", "FluxAttnProcessor2_0", "FusedFluxAttnProcessor2_0", "FluxSingleAttnProcessor2_0"),
    *("AttnAddedKVProcessor", "AttnAddedKVProcessor2_0", "SlicedAttnAddedKVProcessor", "XFormersAttnAddedKVProcessor"),
    "XLAFlashAttnProcessor2_0",
}
_FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
# attributes by which others stand before a layer's own forward
_STAND_BEFORE = {"forward", "_hf_hook", "_diffusers_hook", "_compiled_call_impl"}
# hooks that look and touch nothing
_ONLOOKERS = ("cryptomnesia.", "transformers.utils.output_capturing")
# hooks that move weights and inputs around, of accelerate and of diffusers
_MOVERS = {
    *("AlignDevicesHook", "CpuOffload", "GroupOffloadingHook", "LayerExecutionTrackerHook"),
    *("LazyPrefetchGroupOffloadingHook", "PeftInputAutocastDisableHook"),
}


def weights(module: torch.nn.Module) -> Iterator[Tensor]:
    """Yields all of a module's state that answers, but for LoRAs, which `peculiarities` tells of, and copies.

    Raises InputError where the weights are out of reach.
    """
    state = state_of(module)
    left_out = {name for path, layer in module.named_modules() for name in _not_its_own(path, layer, state)}
    for name, read in state.items():
        if name not in left_out:
            yield from inner_tensors(read())


def peculiarities(module: torch.nn.Module) -> list[str]:
    """Returns what makes a module answer other than its weights and configuration say, sorted; nothing if plain."""
    peculiar = what_is_global()
    for path, layer in module.named_modules():
        peculiar += [f"{path} {words}" for words in (*_adapters(layer), *_hooks(layer))]
    layers, fresh = dict(_layers(module)), _fresh(module)
    for cls in {type(layer) for layer in layers.values()}:
        peculiar += _patches(cls)
    for path, layer in layers.items():
        if fresh is None:
            peculiar += [f"{path} is {describe(layer)}"] if _is_foreign(type(layer)) else []
        elif path in fresh and fresh[path][0] is type(layer):
            peculiar += [f"{path} {words}" for words in _differences(settings_of(layer), fresh[path][1])]
        else:
            peculiar.append(f"{path} is {describe(layer)}")
    peculiar += [f"{path} is missing" for path in fresh or () if path not in layers]
    return sorted(peculiar)


def replaced_by(module: torch.nn.Module) -> str | None:
    """Returns where code comes from, of none of the known libraries, that stands in for a layer's forward, if any."""
    replaced = (_original(layer, vars(layer).get("forward")) for layer in module.modules())
    return next((origin(forward) for forward in replaced if forward is not None and _is_strange(forward)), None)


def active_adapters(module: torch.nn.Module) -> set[str]:
    """Returns the names of the LoRAs that take part in a module's answers, merged ones included."""
    tuned: list[Any] = [layer for layer in module.modules() if _is_tuned(layer)]
    merged = {name for layer in tuned for name in getattr(layer, "merged_adapters", ())}
    on = {name for layer in tuned if not getattr(layer, "disable_adapters", False) for name in layer.active_adapters}
    return merged | on


def adapter_scales(module: torch.nn.Module) -> list[tuple[str, float]]:
    """Returns the names and strengths of the LoRAs of every layer that are on, at next to no cost."""
    tuned: list[Any] = [layer for layer in module.modules() if _is_tuned(layer)]
    on = (layer for layer in tuned if not getattr(layer, "disable_adapters", False))
    return [(name, float(layer.scaling.get(name, 1.0))) for layer in on for name in layer.active_adapters]


def edits(module: torch.nn.Module) -> int:
    """Returns a count that grows when the module's weights are changed in place."""
    return sum(0 if p.is_inference() else p._version for p in module.parameters())


def glance(module: torch.nn.Module, samples: int = 8) -> list[bytes]:
    """Returns a few values of every weight, which training or merging changes; a digest costs a thousand times more.

    Raises InputError where the weights are out of reach.
    """
    groups: dict[Any, list[Tensor]] = {}
    with torch.no_grad():
        for weight, lasts in _weights_at_hand(module):
            size = weight.numel()
            step = max(1, size // samples)
            if weight.is_contiguous():
                values = weight.as_strided((min(samples, size),), (step,))
            else:
                values = weight.detach().flatten()[::step][:samples]
            # what was read from a file is let go of again; on a device, where nothing is, a copy would take a call
            values = values if lasts or values.device.type != "cpu" else values.clone()
            groups.setdefault((weight.device, weight.dtype), []).append(values)
    return [torch.cat(parts).cpu().view(torch.uint8).numpy().tobytes() for parts in groups.values()]


def is_plain(layer: torch.nn.Module) -> bool:
    """Returns whether a layer's answers hang on its class, weights and attributes alone, and on no hook or adapter."""
    own = vars(layer)
    bare = not own.keys() & _STAND_BEFORE and "_orig_mod" not in layer._modules
    return bare and only_looked_at(layer) and not _is_tuned(layer)


def only_looked_at(layer: torch.nn.Module) -> bool:
    """Returns whether no hook of torch on a layer does more than look."""
    if not (layer._forward_hooks or layer._forward_pre_hooks):
        return True
    return all(origin(hook).startswith(_ONLOOKERS) for hook in _torch_hooks(layer))


def _torch_hooks(layer: torch.nn.Module) -> Iterator[Any]:
    yield from (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values())


def _weights_at_hand(module: torch.nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Every plain tensor of a module's state, and whether it lies in the module, and was not read for this."""
    layers = list(module.modules())
    if any(vars(layer).keys() & _STAND_BEFORE or _says_more(layer) for layer in layers):
        yield from ((part, False) for read in state_of(module).values() for part in inner_tensors(read()))
        return
    for layer in layers:
        buffers = (b for name, b in layer._buffers.items() if name not in layer._non_persistent_buffers_set)
        for weight in (*layer._parameters.values(), *buffers):
            if weight is not None:
                yield from ((part, True) for part in inner_tensors(here(weight) if weight.is_meta else weight))


def _says_more(layer: torch.nn.Module) -> bool:
    """Whether a layer's state is more than its parameters and buffers, as of some that are quantised."""
    return bool(layer._state_dict_hooks) or type(layer)._save_to_state_dict is not torch.nn.Module._save_to_state_dict


# --- adapters and copies ---


def _is_tuned(layer: torch.nn.Module) -> bool:
    """Whether it is one of peft's layers, or looks like it."""
    return isinstance(getattr(layer, "scaling", None), dict) and hasattr(layer, "active_adapters")


def _adapters(layer: Any) -> Iterator[str]:
    """The LoRAs that answer: those that are on, not at strength 0, and not merged into the weights already."""
    if not _is_tuned(layer) or getattr(layer, "disable_adapters", False):
        return
    state = state_of(layer)
    for name in sorted(set(layer.active_adapters) - set(getattr(layer, "merged_adapters", ()))):
        scale = float(layer.scaling.get(name, 1.0))
        if scale:
            own = [read() for key, read in state.items() if key.split(".")[1:2] == [name]]
            yield f"adapter {scale:.9g} {fingerprint(own)}"


def _not_its_own(path: str, layer: Any, state: dict[str, Reader]) -> Iterator[str]:
    """Names in the state of what is an adapter's, or a copy of other weights."""
    prefix = f"{path}." if path else ""
    if _is_tuned(layer):
        names = {*layer.scaling, *layer.active_adapters}
        yield from (prefix + key for key in layer.state_dict() if names & set(key.split(".")[1:2]))
    for fused, parts in _FUSED.items():
        for kind in ("weight", "bias"):
            whole, own = f"{prefix}{fused}.{kind}", [f"{prefix}{part}.{kind}" for part in parts]
            if whole in state and all(name in state for name in own):
                copied, joined = state[whole](), torch.cat([state[name]() for name in own])
                if joined.shape == copied.shape and torch.equal(joined.to(copied), copied):
                    yield whole


def _layers(module: torch.nn.Module, path: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module by its path, without the wrappers of adapters and compilers, and without fused copies."""
    base = getattr(module, "_orig_mod", getattr(module, "base_layer", None) if _is_tuned(module) else None)
    if isinstance(base, torch.nn.Module):
        yield from _layers(base, path)
        return
    yield path, module
    for name, child in module.named_children():
        if name not in _FUSED:
            yield from _layers(child, f"{path}.{name}" if path else name)


# --- what differs from a fresh one ---


def _fresh(module: torch.nn.Module) -> dict[str, tuple[type, dict[str, Any]]] | None:
    """Classes and attributes of a module of the same class and configuration; None where none can be made."""
    config = configuration(module)
    return None if config is None or _is_foreign(type(module)) else _made(type(module), config)


def configuration(module: torch.nn.Module) -> str | None:
    """Returns what a module is made of anew, as JSON; None where it does not tell."""
    config = getattr(module, "config", None)
    if config is None:
        return None
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.dumps(values, default=str, sort_keys=True)


@lru_cache(maxsize=32)
def _made(cls: Any, config: str) -> dict[str, tuple[type, dict[str, Any]]] | None:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            if hasattr(cls, "from_config"):
                made = cls.from_config(json.loads(config))
            else:
                made = cls(cls.config_class.from_dict(json.loads(config)))
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
        return None  # e.g. of networks in ONNX files, or with a configuration that was changed since
    return {path: (type(layer), settings_of(layer)) for path, layer in _layers(made)}


def settings_of(layer: torch.nn.Module) -> dict[str, Any]:
    """Returns what a layer was told: numbers, names, functions and its attention processor."""
    found: dict[str, Any] = {}
    for name, value in vars(layer).items():
        if name[0] == "_" or name in _HARMLESS or name == "forward":
            continue
        if isinstance(value, str | int | float):
            found[name] = value
        elif name == "processor":
            found[name] = "exact" if _is_exact(value) else describe(value)
        elif isinstance(value, list | tuple | torch.dtype | _ROUTINES):
            found[name] = describe(list(value) if isinstance(value, tuple) else value)
    return found


def _differences(settings: dict[str, Any], fresh: dict[str, Any]) -> Iterator[str]:
    if settings == fresh:
        return
    for name in sorted(settings.keys() | fresh.keys()):
        if settings.get(name) != fresh.get(name):
            yield f"{name} = {settings.get(name)!r}"


def _is_exact(processor: Any) -> bool:
    cls = type(processor)
    return cls.__name__ in _SAME and all(_package(part) == "diffusers" for part in (cls, cls.__call__))


def _is_foreign(cls: type) -> bool:
    return _package(cls) not in _TRUSTED


def _is_strange(function: Any) -> bool:
    return _package(function) not in _TRUSTED


def _package(value: Any) -> str:
    return origin(value).split(".")[0]


# --- hooks and patches ---


def _hooks(layer: torch.nn.Module) -> Iterator[str]:
    for hook in _torch_hooks(layer):
        if not origin(hook).startswith(_ONLOOKERS):
            yield f"hook {describe(hook)}"
    if isinstance(layer, torch.nn.Dropout) and layer.training and layer.p:
        yield "drops out at random"
    for hook in hooks_of(layer):
        if type(hook).__name__ not in _MOVERS and not is_cache(hook):
            # diffusers' refer to the forwards that they stand before
            yield f"hook {describe(hook, 2 if hasattr(hook, 'fn_ref') else 4)}"
    if "_orig_mod" in layer._modules:
        return  # a compiler's, whose forward is the call of what it wraps
    forward = _original(layer, vars(layer).get("forward"))
    if forward is not None and getattr(forward, "__func__", None) is not type(layer).forward:
        yield f"forward {describe(forward)}"


def _original(layer: torch.nn.Module, forward: Any) -> Any:
    """The forward behind those that compilers and hooks put before it."""
    forward = getattr(forward, "_torchdynamo_orig_callable", forward)
    inner = _package(forward.func) if isinstance(forward, partial) else ""
    if inner == "accelerate":
        return _original(layer, vars(layer).get("_old_forward"))
    references = getattr(getattr(layer, "_diffusers_hook", None), "_fn_refs", None)
    if inner == "diffusers" and references:
        first = references[0]
        return _original(layer, first.original_forward or first.forward)
    return forward


def _patches(cls: type) -> Iterator[str]:
    """Methods of a class of a known library that are somebody else's."""
    if not _is_foreign(cls):
        for method in (cls.forward, cls.__call__):  # type: ignore[attr-defined]
            if _package(method) not in _TRUSTED:
                yield f"{cls.__qualname__} has {describe(method)}"


def what_is_global() -> list[str]:
    """Returns what stands before every module of torch, in words."""
    hooks = torch.nn.modules.module
    found = [*hooks._global_forward_pre_hooks.values(), *hooks._global_forward_hooks.values()]
    attention = torch.nn.functional.scaled_dot_product_attention
    if not isinstance(attention, BuiltinFunctionType):
        found.append(attention)
    return [f"every module: {describe(value)}" for value in found]
