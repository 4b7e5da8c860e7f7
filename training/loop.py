"""One training loop for every recipe: resumable, within a time limit, and on a GPU the whole step is one CUDA graph."""

import logging
import math
import os
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)
WARM_UP_STEPS = 8  # run one by one before the step is captured; they train like all others
DESCENT = 0.3  # last share of the training in which the rate falls to 2 %
AVERAGE = 0.998
NOT_PACKED = "diffusion_pytorch_model.safetensors"  # of the autoencoder, which is the built-in model's


class Recipe(Protocol):
    """What is trained and how its loss comes about; everything is on one device and drawn there."""

    name: str
    trained: nn.ModuleDict
    rate: float
    warmup: int

    def loss(self) -> Tensor:
        """Returns the loss of a fresh batch, a scalar; reads no value back, since a CUDA graph captures the call."""
        ...

    def after_step(self) -> None:
        """Does what follows an optimizer step; captured as well."""
        ...

    def at(self, progress: float) -> None:
        """Sets what changes with the share of the training that is done; not captured, may fill tensors."""
        ...

    def kept(self) -> dict[str, Tensor]:
        """Returns the tensors besides `trained` that a resumed training needs, filled in place on resuming."""
        ...

    def save(self, folder: Path, average: dict[str, Tensor]) -> None:
        """Writes a diffusers folder of these averaged weights, which are float16, on the CPU, named as in `trained`."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long to train, and where to keep what comes of it.

    Attributes:
        folder: The folder of the state and of the trained model.
        minutes, steps: The most that training takes, resumed runs counted in.
        save_seconds, report_seconds: The time between two saves and between two lines of the log.
        graph: Whether the step is captured as a CUDA graph on a GPU.
        out: The folder of a copy in one file; None for no copy.
    """

    folder: Path
    minutes: float
    steps: int
    save_seconds: float = 45.0
    report_seconds: float = 10.0
    graph: bool = True
    out: Path | None = None


def write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors atomically: a run that is stopped leaves the previous file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, {"format": "pt"})
    temporary.rename(path)


def pack(folder: Path, archive: Path) -> None:
    """Writes the folder as one tar file, atomically, less the autoencoder's weights, which `unpack` adds again."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(archive.name + ".tmp")
    with tarfile.open(temporary, "w") as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder)
            if name.parts != ("vae", NOT_PACKED):
                tar.add(path, name.as_posix())
    temporary.rename(archive)


def unpack(archive: Path, folder: Path) -> None:
    """Writes a diffusers folder from what `pack` wrote."""
    from cryptomnesia.demo import WEIGHTS

    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (folder / "vae" / NOT_PACKED).write_bytes((WEIGHTS / "vae" / NOT_PACKED).read_bytes())


class Step:
    """One step, of nothing but device work: loss, gradients, clipping, AdamW, averaged weights."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.parameters = [p for p in recipe.trained.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        # scalars that change from step to step live on the device, so that a captured step reads the newest
        self.rate, self.newest, self.mixing, self.running = (torch.zeros((), device=self.device) for _ in range(4))
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.rate,
            betas=(0.9, 0.99),
            weight_decay=1e-3,
            fused=True,
            capturable=self.device.type == "cuda",
        )
        floats = {k: v for k, v in recipe.trained.state_dict().items() if v.is_floating_point()}
        self.current = list(floats.values())
        self.average = {k: v.clone() for k, v in floats.items()}

    def prepare(self, step: int, progress: float) -> None:
        """Fills the scalars of this step."""
        rate = min((step + 1) / self.recipe.warmup, 1.0, max(0.02, (1 - progress) / DESCENT))
        self.rate.fill_(self.recipe.rate * rate)
        self.newest.fill_(1 - min(AVERAGE, (step + 1) / (step + 10)))
        self.mixing.fill_(max(0.02, 1 / (step + 1)))
        self.recipe.at(progress)

    def __call__(self) -> None:
        loss = self.recipe.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.recipe.after_step()
        with torch.no_grad():
            average = list(self.average.values())
            # one kernel for many tensors; the weight is a tensor, which _foreach_lerp_ does not take
            change = torch._foreach_sub(self.current, average)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(change, self.newest)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(average, change)  # pyright: ignore[reportPrivateImportUsage]
            self.running.lerp_(loss.detach(), self.mixing)

    def state(self) -> dict[str, Tensor]:
        """Returns all that a resumed training needs, by name, on the CPU."""
        tensors = {f"model/{k}": v for k, v in self.recipe.trained.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        tensors |= {f"kept/{k}": v for k, v in self.recipe.kept().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Puts what `state` returned in place."""
        weights = self.recipe.trained.state_dict()
        self.recipe.trained.load_state_dict({k: tensors[f"model/{k}"] for k in weights})
        for name, value in self.average.items():
            value.copy_(tensors[f"average/{name}"])
        for name, value in self.recipe.kept().items():
            value.copy_(tensors[f"kept/{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, number, name = key.split("/")
                moments.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate  # loading puts a copy there


def captured(step: Step) -> Callable[[], None]:
    """Returns the step as one CUDA graph, to be replayed; call it after some steps on a side stream.

    A failed capture leaves generators and allocator unusable: the program starts itself again without a graph.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        step.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        torch.cuda.synchronize()
    except RuntimeError:
        log.exception("%s: CAPTURE FAILED, starting again without a graph", step.recipe.name)
        logging.shutdown()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--eager"])
    return graph.replay


def train(recipe: Recipe, plan: Plan) -> int:
    """Trains to the plan's end, or on from the state that is there, and returns the number of steps done.

    Raises:
        FloatingPointError: The loss is no longer finite; what was saved before stays.
    """
    step, state = Step(recipe), plan.folder / "state.safetensors"
    number, before = 0, 0.0
    if state.exists():
        tensors = load_file(state)
        step.load(tensors)
        step.running.copy_(tensors["running"])
        number, before = int(tensors["step"]), float(tensors["seconds"])
        log.info("%s: resumed at step %d", recipe.name, number)
    torch.manual_seed(number + 3)
    gpu = step.device.type == "cuda"
    first, run, side = number, step, torch.cuda.Stream() if gpu else None
    started = reported = saved = time.monotonic()
    at_report = number

    def save(elapsed: float) -> None:
        loss = step.running.item()
        if not math.isfinite(loss):
            raise FloatingPointError(f"{recipe.name}: the loss is {loss} at step {number}; the last save stays")
        average = {k: v.detach().half().cpu() for k, v in step.average.items()}
        recipe.save(plan.folder / "model", average)
        if plan.out is not None:
            pack(plan.folder / "model", plan.out / f"{recipe.name}.tar")
        counters = {"step": torch.tensor(number), "seconds": torch.tensor(elapsed), "running": torch.tensor(loss)}
        write_file(state, step.state() | counters)

    while True:
        now = time.monotonic()
        elapsed = before + now - started
        progress = max(number / plan.steps, elapsed / 60 / plan.minutes)
        if progress >= 1:
            break
        step.prepare(number, progress)
        if gpu and plan.graph and number - first == WARM_UP_STEPS:
            torch.cuda.synchronize()
            run = captured(step)
            number += 1  # the first replay
            step.prepare(number, progress)
            log.info(
                "%s: captured after %.0f s, %.1f GB", recipe.name, elapsed, torch.cuda.max_memory_allocated() / 1e9
            )
        if side is not None and number - first < WARM_UP_STEPS:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()
            torch.cuda.current_stream().wait_stream(side)
        else:
            run()
        number += 1
        if gpu and number % 4 == 0:
            torch.cuda.synchronize()  # else the host runs ahead of its clock
        if now - reported >= plan.report_seconds or number - first == 1:
            speed = (number - at_report) / max(now - reported, 1e-3)
            message = "%s: step %d, loss %.5f, %.1f steps/s, %.1f of %.1f minutes"
            log.info(message, recipe.name, number, step.running.item(), speed, elapsed / 60, plan.minutes)
            reported, at_report = now, number
        if now - saved >= plan.save_seconds:
            save(elapsed)
            saved = time.monotonic()
    save(before + time.monotonic() - started)
    log.info("%s: finished at step %d, loss %.5f", recipe.name, number, step.running.item())
    return number
