"""Trains the image encoder that ships: `python -m training.encoder OUT.onnx`, on one core in ten minutes.

Contrastive learning (SimCLR: Chen et al. 2020, arXiv 2002.05709) on the built-in model's training images: two views of
an image lie close, those of different images apart. The views differ in what must not count: place and size, blur,
noise, JPEG, and the tone of the colours, which a fine-tune shifts easily.
"""

import argparse
import io
import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptomnesia.errors import require
from cryptomnesia.files import write_atomically

from .demo.records import Record, render, training_records
from .demo.train import schedule

log = logging.getLogger(__name__)
SIZE, WIDTHS, FEATURES = 64, (48, 96, 192), 128
BATCH, TEMPERATURE, RATE = 64, 0.2, 1.5e-3
OPSET = 18


class Block(nn.Module):
    """Two convolutions around which the input passes."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(inner)))


class Network(nn.Module):
    """Images (B, 3, 64, 64) in [0, 1] -> (B, 336): how much each feature varies over the image, at three scales.

    That is an image's style more than its content (Huang & Belongie 2017, arXiv 1703.06868).
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.patches = nn.Conv2d(3, first, 4, stride=4)
        self.block1, self.block2 = Block(first), Block(second)
        self.down1 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, third)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([functional.normalize(layer.std((2, 3)), dim=1) for layer in self.layers(x)], 1)

    def pooled(self, x: Tensor) -> Tensor:
        """Returns (B, 192) features of length 1, which training compares."""
        return functional.normalize(self.layers(x)[-1].mean((2, 3)), dim=1)

    def layers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns features at a quarter, an eighth and a sixteenth of the image's size."""
        first = self.block1(self.patches(2 * x - 1))
        second = self.block2(self.down1(functional.silu(first)))
        third = self.down2(functional.silu(second))
        return first, second, functional.silu(self.norm(third))


class Views:
    """Random views of training images, all kinds of captions equally often."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.numbers = torch.Generator().manual_seed(seed)
        self.records: dict[str, list[Record]] = {}
        for record in training_records():
            self.records.setdefault(record.caption.kind, []).append(record)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Returns two views (B, 3, 64, 64) of the same images."""
        kinds = sorted(self.records)
        images = [render(self.random.choice(self.records[self.random.choice(kinds)])) for _ in range(BATCH)]
        return self._view(images), self._view(images)

    def _view(self, images: list[Any]) -> Tensor:
        x = torch.from_numpy(np.stack([np.asarray(self._compressed(image)) for image in images]))
        x = x.permute(0, 3, 1, 2).float() / 255
        count = len(x)
        zoom = self._uniform(count, 0.75, 1)
        shift = (1 - zoom)[:, None] * self._uniform(2 * count, -1, 1).view(count, 2)
        frame = torch.cat([torch.diag_embed(zoom[:, None].expand(-1, 2)), shift[:, :, None]], 2)
        x = functional.grid_sample(x, functional.affine_grid(frame, list(x.shape), False), "bilinear", "border", False)
        for _ in range(2):
            soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
            x = torch.lerp(x, soft, self._uniform(count, 0, 1).view(-1, 1, 1, 1))
        x = self._toned(x)
        noise = torch.randn(x.shape, generator=self.numbers) * self._uniform(count, 0, 0.12).view(-1, 1, 1, 1)
        return (x + noise).clamp(0, 1)

    def _toned(self, x: Tensor) -> Tensor:
        """Returns the images with other saturation, contrast and brightness."""
        saturation, contrast = self._uniform(2 * len(x), 0.6, 1.3).view(2, -1, 1, 1, 1)
        grey = x.mean(1, keepdim=True)
        x = grey + saturation * (x - grey)
        middle = x.mean((1, 2, 3), keepdim=True)
        return middle + contrast * (x - middle) + self._uniform(len(x), -0.12, 0.12).view(-1, 1, 1, 1)

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=self.numbers)

    def _compressed(self, image: Any) -> Any:
        if self.random.random() < 0.5:
            return image
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.random.randint(40, 95))
        return require("PIL.Image", "train").open(buffer)


def contrast(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cross-entropy of finding an image's other view among all views but itself (SimCLR's NT-Xent)."""
    z = functional.normalize(torch.cat([a, b]), dim=1)
    likeness = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    other = torch.arange(len(z)).roll(len(a))
    return functional.cross_entropy(likeness, other)


def train(steps: int, seed: int = 0) -> Network:
    """Returns the encoder after so many batches; the layer that the loss is measured behind is thrown away."""
    torch.manual_seed(seed)
    network, views = Network(), Views(seed)
    head = nn.Sequential(nn.Linear(WIDTHS[-1], WIDTHS[-1]), nn.SiLU(), nn.Linear(WIDTHS[-1], FEATURES))
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], RATE, weight_decay=1e-3)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps, 50))
    began = time.monotonic()
    for step in range(steps):
        a, b = views.batch()
        loss = contrast(*head(network.pooled(torch.cat([a, b]))).chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        if (step + 1) % 50 == 0:
            log.info("%d: loss %.3f, %.2f s", step + 1, loss.item(), (time.monotonic() - began) / (step + 1))
    return network.eval()


def export(network: Network, path: Path) -> None:
    """Writes the network as ONNX, atomically: any number of images per call, parameters named as they are here."""
    for package in ("onnx", "onnxscript"):
        require(package, "train")
    program: Any = torch.onnx.export(
        network,
        (torch.rand(2, 3, SIZE, SIZE),),
        input_names=["images"],
        output_names=["embeddings"],
        dynamic_shapes=({0: torch.export.Dim("count")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        del part.metadata_props[:]  # where in whose folders each line of code lies
    # in [0, 1]: what an encoder's file does not say, its reader must guess
    for name, value in (("mean", "0 0 0"), ("std", "1 1 1")):
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    write_atomically(path, model.SerializeToString())


def save(network: Network, path: Path) -> None:
    """Writes OUT.onnx and OUT.safetensors, both of the weights in half precision, so that they are equal."""
    network = network.half().float()
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path.with_suffix(".safetensors"), require("safetensors.torch", "train").save(weights))
    export(network, path)


def load(path: Path) -> Network:
    """Returns the network whose weights `save` wrote to OUT.safetensors."""
    network = Network()
    weights = require("safetensors.torch", "train").load_file(path)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    save(train(options.steps), options.out)


if __name__ == "__main__":
    main()
