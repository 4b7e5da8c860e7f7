"""What onnxruntime costs next to torch: `python -m benchmarks.onnx`. Paired ratios within one run, with spread.

The built-in model's UNet is exported, and takes turns with the original at calls of several sizes and at whole checks;
the numbers of both are compared.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.onnx import OnnxUNet
from cryptomnesia.adapters.onnx_session import Session
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import select
from cryptomnesia.signals.memorization import memorization_score

from .common import arguments, store, table
from .speed import paired

ROWS = (1, 2, 16, 64)
PROMPTS = 16


class Positional(torch.nn.Module):
    """The UNet as the exporter wants it: tensors in, one tensor out."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.unet(sample, timestep, text, return_dict=False)[0]


def exported(unet: Any, file: Path) -> OnnxUNet:
    """The same network in an ONNX file, with any number of rows."""
    values = (torch.rand(2, 4, 16, 16), torch.tensor([9, 5]), torch.rand(2, 77, unet.config.cross_attention_dim))
    axes = {name: {0: "rows"} for name in (*OnnxUNet.NEEDS, "out_sample")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Positional(unet),
            values,
            str(file),
            input_names=list(OnnxUNet.NEEDS),
            output_names=["out_sample"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return OnnxUNet(unet.config, Session(file, OnnxUNet.NEEDS))


def call(denoiser: Any, rows: int) -> torch.Tensor:
    """One call of the network at pure noise, for the empty prompt."""
    x = torch.randn(rows, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(0))
    return denoiser.predict(x, denoiser.levels.pure_noise, denoiser.empty).noise


def compared(ask: Callable[[Any], torch.Tensor], ours: Any, theirs: Any, rounds: int) -> dict[str, Any]:
    """Times of asking both, and how far their answers are apart at most."""
    apart = float((ask(ours) - ask(theirs)).abs().max())
    return {**paired(lambda: ask(ours), lambda: ask(theirs), rounds), "largest_difference": apart}


def main() -> None:
    options = arguments(__doc__, rounds={"type": int, "default": 25})
    torch.set_grad_enabled(False)
    theirs: Any = to_denoiser(load_demo())
    pipe = copy.copy(theirs.pipe)
    with tempfile.TemporaryDirectory() as folder:
        pipe.unet = exported(theirs.network, Path(folder) / "model.onnx")
    models = to_denoiser(pipe), theirs
    found: dict[str, dict[str, Any]] = {}
    for rows in ROWS:
        row = compared(lambda d, n=rows: call(d, n), *models, options.rounds)
        speed = {"rows_per_second": rows / row["our_seconds"], "torch_rows_per_second": rows / row["their_seconds"]}
        found[f"call of {rows}"] = {**row, **speed}
    condition = theirs.encode([c.text for c in select("general", "eval")[:PROMPTS]])
    found[f"check of {PROMPTS}"] = compared(lambda d: memorization_score(d, condition).score, *models, options.rounds)
    lines = [[name, row["ratio"], *row["spread"], f"{row['largest_difference']:.1e}"] for name, row in found.items()]
    table(["", "time / torch's", "from", "to", "differs by"], lines)
    store("onnx", {"rounds": options.rounds, "onnxruntime": version("onnxruntime"), "paired_ratios": found})


if __name__ == "__main__":
    main()
