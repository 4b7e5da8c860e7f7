"""The command line that the recipes share, and how they save their networks."""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .loop import Plan, Recipe, train, write_file


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of every recipe."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("folder", type=Path, help="state and diffusers folder (`model`); resumes from what is there")
    made.add_argument("--latents", type=Path, required=True, help="folder of `python -m training.latents`")
    made.add_argument("--device", default="cpu")
    made.add_argument("--minutes", type=float, default=600.0, help="of training in all, resumed ones counted in")
    made.add_argument("--steps", type=int, default=1_000_000)
    made.add_argument("--batch", type=int, default=256)
    made.add_argument("--save-seconds", type=float, default=45.0)
    made.add_argument("--report-seconds", type=float, default=10.0)
    made.add_argument("--out", type=Path, help="also keeps one tar file of the model there")
    made.add_argument("--eager", action="store_true", help="no CUDA graph")
    return made


def run(recipe: Recipe, options: argparse.Namespace) -> int:
    """Trains as the options say, and returns the number of steps done."""
    return train(
        recipe,
        Plan(
            options.folder,
            options.minutes,
            options.steps,
            options.save_seconds,
            options.report_seconds,
            graph=not options.eager,
            out=options.out,
        ),
    )


def parsed(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Returns the options, and sets up logging and the device as they say."""
    options = made.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(2)
    if options.device != "cpu":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)  # the other kernels are known to be captured well
    return options


def save_network(network: Any, part: str, folder: Path, average: dict[str, Tensor]) -> None:
    """Writes configuration and averaged weights of one part, as diffusers or transformers reads them."""
    text = part.startswith("text_encoder")
    (folder / part).mkdir(parents=True, exist_ok=True)
    network.config.save_pretrained(folder / part) if text else network.save_config(folder / part)
    weights = {k.removeprefix(part + "."): v for k, v in average.items() if k.startswith(part + ".")}
    write_file(folder / part / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors"), weights)
