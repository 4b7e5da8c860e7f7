"""Networks of real models' shapes, run for real with random weights: Stable Diffusion 1.5 on a CPU, all on a GPU.

Weights decide neither time nor memory. For `benchmarks.shapes`.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from cryptomnesia import Guard

from .common import peak_memory
from .hollow import SD_SCHEDULE, hollow
from .speed import seconds
from .true_shapes import SHAPES, TrueShape

NAME, CPU = "SD 1.5, 512 px", torch.device("cpu")
WORKS = ("guided step", "check", "check, another prompt")
CLIP_L: dict[str, Any] = {  # openai/clip-vit-large-patch14, but for the tokens, which are the tests' tokenizer's
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "bos_token_id": 52,
    "eos_token_id": 53,
    "pad_token_id": 53,
}


def full_width() -> Any:
    """Stable Diffusion 1.5's pipeline with network and text encoder of the true shape, random weights, in float32."""
    pipe, _ = hollow(NAME, DDIMScheduler(**SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet = SHAPES[NAME].made(CPU, torch.float32)
        pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**CLIP_L)).eval().requires_grad_(False)
    return pipe


def _work(pipe: Any, guard: Guard, name: str) -> Callable[[], Any]:
    if name == "guided step":
        return lambda: pipe("a cat", num_inference_steps=1, output_type="latent")
    return lambda: guard.check("a cat" if name == "check" else "a dog")


class _Inside:
    """The time within calls of a network.

    By slots, since a hook's attributes are part of what a model is taken for, and these change with every call.
    """

    __slots__ = ("_started", "handles", "seconds")

    def __init__(self, network: Any):
        self.seconds, self._started = 0.0, 0.0
        self.handles = (network.register_forward_pre_hook(self._begin), network.register_forward_hook(self._end))

    def _begin(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started


def on_cpu(rounds: int) -> dict[str, Any]:
    """Time and memory of a check beside the pipeline's own guided step; ratios of pairs within one run, with range."""
    memory = {name: _in_own_process(name) / 1e6 for name in WORKS[:2]}
    print(f"MB above the weights: {memory}", flush=True)
    pipe = full_width()
    first, inside = Guard(pipe), _Inside(pipe.unet)
    _work(pipe, first, "guided step")()  # warms up
    _ = first.denoiser.fingerprint  # digests the weights, once per model
    ratios: dict[str, list[float]] = {name: [] for name in (*WORKS[1:], "outside the network")}
    for _ in range(rounds):
        step = seconds(_work(pipe, first, "guided step"))
        fresh, took = Guard(first.denoiser), 0.0
        for name in WORKS[1:]:
            inside.seconds = 0.0
            took = seconds(_work(pipe, fresh, name))
            ratios[name].append(took / step)
        ratios["outside the network"].append(took / inside.seconds - 1)
        print(f"of a guided step's {step:.1f} s: { {name: row[-1] for name, row in ratios.items()} }", flush=True)
    spread = {name: {"median": statistics.median(row), "range": [min(row), max(row)]} for name, row in ratios.items()}
    return {
        "rounds": rounds,
        "time, of a guided step's": spread,
        "memory above the weights, MB": memory,
        "memory, of a guided step's": memory["check"] / memory["guided step"],
        "traced, MB": {"guided step": SHAPES[NAME].peak(2, dtype=torch.float32) / 1e6},
    }


def _in_own_process(name: str) -> int:
    """Peak resident bytes above those that were there before, of a process that does nothing else."""
    code = f"import benchmarks.shapes_real as s; s.print_memory({name!r})"
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return int(answer.stdout.split()[-1])


def print_memory(name: str) -> None:
    """Prints the peak of resident memory while that work is done, above the memory before; Linux only."""
    pipe = full_width()
    guard = Guard(pipe)
    _ = guard.denoiser.fingerprint
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_memory()
    _work(pipe, guard, name)()
    print(peak_memory() - before)


def on_cuda(models: dict[str, Any]) -> dict[str, Any]:
    """Time and memory of the largest call of a check beside a guided step, in 16 bits; and what the trace said."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for name, model in models.items():
        shape, rows = SHAPES[name], model["costs"]["check, first prompt"]["largest call"]
        try:
            found[name] = _calls(shape, {"guided step": shape.branches, "largest call of a check": rows})
        except torch.OutOfMemoryError as error:
            found[name] = f"no memory: {error}"[:200]
        torch.cuda.empty_cache()
        print(f"{name}: {found[name]}", flush=True)
    return found


def _calls(shape: TrueShape, works: dict[str, int]) -> dict[str, Any]:
    device, found = torch.device("cuda"), {}
    network = shape.made(device, shape.half)
    for work, rows in works.items():
        told = shape.arguments(rows, shape.tokens, shape.half, device)
        with torch.inference_mode():
            network(**told)
            torch.cuda.synchronize()
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            times = [seconds(lambda told=told: network(**told)) for _ in range(7)]
        found[work] = {
            "rows": rows,
            "ms": 1000 * statistics.median(times),
            "range": [1000 * min(times), 1000 * max(times)],
            "MB": (torch.cuda.max_memory_allocated() - held) / 1e6,
            "traced, MB": shape.peak(rows) / 1e6,
        }
    return found
