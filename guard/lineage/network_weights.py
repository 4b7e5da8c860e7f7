"""The weights of a model's denoising network, in whatever files they lie, read one at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.weight_files import PLAIN, by_variant
from ..errors import InputError
from ..printable import printable
from ..tensors import open_tensors

_PARTS = ("unet", "transformer")  # of a pipeline's folder
_PREFIXES = ("model.diffusion_model.", "diffusion_model.")  # of single files, before the network's own names
_WHAT, _REMEDY = "weights file", "get the file again"


class NetworkWeights:
    """The matrices of a denoising network, by the names that its format has; smaller tensors say little of descent.

    Attributes:
        source: What messages call the model.
        shapes: The shape of each, without sides of length 1 at the end: convolutions of one pixel are matrices.
    """

    def __init__(self, source: str, files: dict[str, tuple[Any, str]]):
        self.source, self._files = source, files
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, (file, key) in files.items():
            shape = _squeezed(file.get_slice(key).get_shape())
            if len(shape) > 1:
                self.shapes[name] = shape

    def read(self, name: str) -> Tensor:
        """Returns a weight, float32. Raises InputError for NaN or infinity."""
        file, key = self._files[name]
        weight = file.get_tensor(key).to(torch.float32).view(self.shapes[name])
        if not torch.isfinite(weight).all():
            raise InputError(f"{self.source} holds NaN or infinity in {printable(key, 80)}: get the file again")
        return weight


@contextmanager
def network_weights(source: str | Path) -> Iterator[NetworkWeights]:
    """Opens a model's weights within the block; no code of it is run and no pickle opened.

    Args:
        source: A pipeline's folder, a folder with a network's weights, or a .safetensors file of either.

    Raises:
        InputError: There are none, they cannot be read, or they are a LoRA's alone.
        MissingPackage: safetensors is not installed.
    """
    path = Path(source).expanduser()
    files: dict[str, tuple[Any, str]] = {}
    with ExitStack() as stack:
        for part in _weight_files(path):
            file = stack.enter_context(open_tensors(part, _WHAT, _REMEDY))
            files.update({key: (file, key) for key in file.keys()})  # noqa: SIM118 (no mapping)
        names = str(source)
        if files and all("lora" in key.lower() or key.endswith(".alpha") for key in files):
            raise InputError(
                f"{names} is a LoRA and no whole model: merge it into its base first, or compare the bases"
            )
        own = [prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in files)]
        if own:  # a file of everything: text encoders and autoencoder are left out
            files = {key.removeprefix(own[0]): found for key, found in files.items() if key.startswith(own[0])}
        opened = NetworkWeights(names, files)
        if not opened.shapes:
            raise InputError(f"{names} holds no weights of a network: give a model's folder or its .safetensors file")
        yield opened


def _weight_files(path: Path) -> list[Path]:
    if path.is_dir():
        folder = next((path / part for part in _PARTS if (path / part).is_dir()), path)
        variants = by_variant(folder)
        return variants.get(PLAIN) or next(iter(variants.values()))
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise InputError(f"{path} is a pickle, which may run code: convert it to safetensors first")
    return [path]


def _squeezed(shape: list[int]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)
