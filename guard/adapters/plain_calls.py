"""The library's own calls of a pipeline's modules: without compilers and caches, and with weights that gradients find.

A check asks with other numbers of rows than the pipeline, and with gradients. A compiler would make a new graph for
each, which takes minutes and uses up how many it makes at all; a cache would take its questions for steps of the
sampler. Weights that are moved or cast after each layer are elsewhere, or in another type, when gradients are computed.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..identity import origin
from .offloaded import hooks_of

# hooks of diffusers that answer later steps by what earlier ones were answered
_CACHES = {
    *("first_block_cache", "pyramid_attention_broadcast", "faster_cache", "taylorseer_cache", "mag_cache"),
    "text_kv_cache",
}
_LOCK = threading.RLock()  # of two calls at once, one would take the other's changes for the network's own


def is_cache(hook: Any) -> bool:
    """Returns whether a hook of diffusers is one that answers later steps by what earlier ones were answered."""
    library, _, name = origin(hook).rpartition(".")
    return library == "diffusers.hooks" and name in _CACHES


@contextmanager
def plainly(*modules: Any, grad: bool = False) -> Iterator[None]:
    """Within the block, modules answer as they would if they were neither compiled nor cached.

    Args:
        modules: Modules of torch; anything else is left alone.
        grad: Also keep weights for gradients, where they are moved or cast between calls. All that took part stay on
            the device until the gradients are computed.
    """
    layers = [layer for module in modules if isinstance(module, torch.nn.Module) for layer in module.modules()]
    with ExitStack() as undo:
        if grad and any(True for layer in layers for _ in hooks_of(layer)):
            # what is saved is the weight of now, and not the one that its parameter holds later
            undo.enter_context(torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, lambda kept: kept))
        if any(True for layer in layers for _ in _changes(layer)):
            undo.enter_context(_LOCK)
            for owner, name, value in [change for layer in layers for change in _changes(layer)]:
                undo.callback(owner.__setitem__, name, owner[name])
                owner[name] = value
        yield


def _changes(layer: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Attributes that stand for a compiler or a cache, each with what takes its place: (holder, name, value)."""
    own = vars(layer)
    if own.get("_compiled_call_impl") is not None:
        yield own, "_compiled_call_impl", None
    plain = getattr(own.get("forward"), "_torchdynamo_orig_callable", None)
    if plain is not None:
        yield own, "forward", plain
    for hook in hooks_of(layer):
        if is_cache(hook):
            yield vars(hook.fn_ref), "forward", hook.fn_ref.original_forward
