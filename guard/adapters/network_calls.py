"""The calls that a pipeline makes of its network while it samples: seen as they come, and read."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import Tensor

from ..denoiser import Condition
from ..errors import NotApplicable
from ..protocols import PipelineDenoiser

Seen = Callable[[dict[str, Any], Any], None]
Before = Callable[[Any, tuple[Any, ...]], None]
After = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]

# what a network may be told without becoming another one; the rest conditions it on more than the prompt
_KNOWN = {
    "sample",
    "hidden_states",
    "timestep",
    "timesteps",
    "encoder_hidden_states_t5",
    "encoder_hidden_states_llama3",
    "pooled_embeds",
    "original_size",
    "target_size",
    "crop_coords",
    "x",
    "t",
    "cap_feats",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "attention_mask",
    "pooled_projections",
    "text_embeds",
    "time_ids",
    "resolution",
    "aspect_ratio",
    "timestep_cond",
    "guidance",
    "img_ids",
    "txt_ids",
    "skip_layers",  # an extra call of Stable Diffusion 3's, beside the ordinary ones
    "return_dict",
}
# what a ControlNet or a T2I-Adapter tells it of an image
_OF_IMAGES = {
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",  # a list that the network empties
    "block_controlnet_hidden_states",
    "controlnet_block_samples",
    "controlnet_single_block_samples",
}


class Handle(Protocol):
    """What undoes a hook."""

    def remove(self) -> None:
        """The hook is called no more."""
        ...


def hook(network: Any, *, before: Before | None = None, after: After | None = None) -> Handle:
    """Has functions called around every call of a network, outside of what is compiled.

    Ordinary hooks of a module that was compiled in place are compiled along with it: they would be traced, and end a
    graph that is to be whole.

    Args:
        network: A torch module.
        before: before(module, args); what it raises ends the call.
        after: after(module, args, kwargs, output), likewise; what it returns changes nothing.

    Returns:
        What undoes it.
    """
    if getattr(network, "_compiled_call_impl", None) is not None:
        return _Around(network, before, after)
    handles = []
    if before is not None:
        handles.append(network.register_forward_pre_hook(before))
    if after is not None:
        handles.append(network.register_forward_hook(after, with_kwargs=True))
    return _Handles(handles)


class _Handles:
    def __init__(self, handles: list[Any]):
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class _Around:
    """Stands in for what `module.compile()` made, and calls it."""

    def __init__(self, network: Any, before: Before | None, after: After | None):
        self._network, self._before, self._after = network, before, after
        self._compiled = network._compiled_call_impl
        network._compiled_call_impl = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._before is not None:
            self._before(self._network, args)
        output = self._compiled(*args, **kwargs)
        if self._after is not None:
            self._after(self._network, args, kwargs, output)
        return output

    def remove(self) -> None:
        self._before = self._after = None
        if self._network._compiled_call_impl is self:  # else another one stands around it
            self._network._compiled_call_impl = self._compiled


@contextmanager
def watched(denoiser: PipelineDenoiser, seen: Seen, ours: Callable[[], bool] | None = None) -> Iterator[None]:
    """While this lasts, the calls that a pipeline makes of its network are seen as they are answered.

    Until the first of them, prompts are being encoded: so long, no other thread encodes any.

    Args:
        denoiser: The pipeline's denoiser.
        seen: seen(arguments by name, output), after each call; what it raises ends the sampling.
        ours: Whether the call that is being made is one of the pipeline's; by default all of this thread are.
    """
    network, thread, text = denoiser.network, threading.get_ident(), ExitStack()
    forward = inspect.signature(type(getattr(network, "_orig_mod", network)).forward)
    ours = ours or (lambda: threading.get_ident() == thread)

    def answered(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if ours():
            text.close()
            seen(_by_name(forward, (module, *args), kwargs), output)

    handle = hook(network, after=answered)
    text.enter_context(denoiser.text_lock)
    try:
        yield
    finally:
        handle.remove()
        text.close()


def read_call(
    denoiser: PipelineDenoiser, arguments: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor, Condition, Tensor]:
    """Returns a call that a pipeline made of its network, as `PipelineDenoiser.read_call`: (x, time, condition, raw).

    Raises:
        NotApplicable: It cannot be read, or the network is told something besides prompts.
    """
    try:
        found = denoiser.read_call(arguments, output)
    except (LookupError, TypeError, AttributeError) as error:
        name = type(denoiser.network).__name__
        raise NotApplicable(f"the calls of {name} cannot be read: give the pipeline its own network") from error
    given = arguments | (arguments.get("added_cond_kwargs") or {})
    given.pop("added_cond_kwargs", None)
    if any(given.get(name) is not None for name in _OF_IMAGES):
        raise NotApplicable(
            "a ControlNet or T2I-Adapter takes part and tells the network of an image, and the check knows prompts "
            "only: ask guard.check(), which asks the network without it"
        )
    known = _KNOWN.union(getattr(denoiser, "also_told", ()))
    odd = [name for name, value in given.items() if name not in known and _says_something(value)]
    if odd:
        raise NotApplicable(
            f"the network is also told {', '.join(sorted(odd))}, and the check knows text prompts only: leave that out"
        )
    return found


def _says_something(value: Any) -> bool:
    return value is not None and (isinstance(value, Tensor) or bool(value))


def _by_name(forward: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name; what a wrapper only passes on, too."""
    try:
        found = dict(forward.bind(*args, **kwargs).arguments)
    except TypeError:  # the network's own forward is not its class's
        return kwargs
    for name, parameter in forward.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= found.pop(name, {})
    found.pop(next(iter(forward.parameters)), None)
    return found
