"""How much memory a computation takes at its largest, followed tensor by tensor; nothing need be computed for it.

What is followed are storages that come into being while this watches: outputs of operations, from the moment they are
there until nothing refers to them any more. On the meta device that costs no memory and hardly any time, so that the
largest networks can be asked. Not seen are what operations take and give back within themselves (a convolution's
workspace) and what an allocator keeps in reserve.

Attention by `scaled_dot_product_attention` is counted as its flash form has it: the output and a number per query, and
no matrix of scores.
"""

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Follows the storages that come into being within the block.

    Attributes:
        live: Bytes of those that are there now.
        peak: The most that were there at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}  # bytes counted for each storage that is there

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):  # weights and the like, whose views are no memory of their own
            self._follow(tensor, counted=False)
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            self._follow(tensor, counted=True)
        return out

    def _follow(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes() if counted else 0
        self.live += self._known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._known.pop(key)


class _FlashAttention(TorchFunctionMode):
    """Answers attention on the meta device with tensors of the shapes that the flash form makes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value = args[:3] if len(args) > 2 else (kwargs[name] for name in ("query", "key", "value"))
        rows, heads, length, _ = query.shape
        # by position, then head, as it lies in memory: what follows needs no copy
        out = query.new_empty(rows, length, heads, value.shape[-1]).transpose(1, 2)
        query.new_empty(rows, heads, length, dtype=torch.float32)  # the logarithm of each query's sum
        return out


def peak_bytes(work: Callable[[], object], *, flash: bool = True) -> int:
    """Returns the most bytes that `work` has at once, in tensors that it makes itself.

    Args:
        work: What is done; its arguments count where it makes them.
        flash: Whether attention is counted as its flash form, which needs the meta device; else as it is computed.
    """
    memory = LiveMemory()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if flash:
            stack.enter_context(_FlashAttention())
        stack.enter_context(memory)
        work()
    return memory.peak


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
