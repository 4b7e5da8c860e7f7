"""Keeps what ComfyUI changes in a process away from the other tests."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

SIGNALS = (signal.SIGINT, signal.SIGTERM)
sdp = torch.backends.cuda


def kept() -> list[tuple[Any, Callable[[Any], Any]]]:
    """Present values, each with what sets it again."""
    root = logging.getLogger()
    now: list[tuple[Any, Callable[[Any], Any]]] = [
        (torch.get_default_dtype(), torch.set_default_dtype),
        (torch.is_grad_enabled(), torch.set_grad_enabled),
        (torch.get_num_threads(), torch.set_num_threads),
        (torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision),
        (torch.are_deterministic_algorithms_enabled(), torch.use_deterministic_algorithms),
        (sdp.math_sdp_enabled(), sdp.enable_math_sdp),
        (sdp.flash_sdp_enabled(), sdp.enable_flash_sdp),
        (sdp.mem_efficient_sdp_enabled(), sdp.enable_mem_efficient_sdp),
        (sdp.fp16_bf16_reduction_math_sdp_allowed(), sdp.allow_fp16_bf16_reduction_math_sdp),
        (root.level, root.setLevel),
        (root.handlers[:], lambda handlers: setattr(root, "handlers", handlers)),
        (asyncio.get_event_loop_policy(), asyncio.set_event_loop_policy),
        (dict(os.environ), environment),
    ]
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        now.append((getattr(module, name), lambda value, module=module, name=name: setattr(module, name, value)))
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            now.append((signal.getsignal(number), lambda handler, number=number: signal.signal(number, handler)))
    return now


def environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Sets the process's global state back at the end, random numbers included."""
    before = kept()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for value, restore in before:
            restore(value)


@contextmanager
def first_on_path(folder: Path) -> Iterator[None]:
    """The folder wins over the repository's own top folders; behind all else afterwards, for late imports."""
    before = sys.path[:]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = [*before, str(folder)]
