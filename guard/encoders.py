"""Image encoders behind one question: an ONNX file, or a CLIP folder of transformers. Nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .adapters.onnx_session import PROVIDERS
from .errors import InputError, NonFiniteError, require
from .pixels import fitted
from .printable import first_line
from .strict_json import read_object

Embeddings = NDArray[np.float32]
BUILT_IN = Path(__file__).parent / "lineage" / "weights" / "encoder.onnx"
DYNAMIC_SIZE = 224  # pixels, where a file takes any
PER_CALL = 32
LARGEST = 10 << 20  # bytes of a settings file
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_EMBEDDINGS = ("image_embeds", "embeddings", "pooler_output")
_CHOICES = "give an .onnx file of an image encoder, or a folder of transformers' CLIP"


class Encoder(Protocol):
    """Turns images into vectors.

    Attributes:
        name: What the encoder is called in reports.
        size: (H, W) in pixels that every image is brought to.
    """

    name: str
    size: tuple[int, int]

    def encode(self, images: Sequence[Tensor]) -> Embeddings:
        """Returns vectors (B, D) float32 of B images (1, 3, H, W) in [0, 1] of any sizes.

        Raises NonFiniteError for NaN or infinity.
        """
        ...


class OnnxEncoder:
    """An ONNX file through onnxruntime, on a GPU where the installed onnxruntime has one, else on the CPU.

    Args:
        path: A file with one input (B, 3, H, W), sizes fixed or free. Of its outputs, one called image_embeds,
            embeddings or pooler_output is taken, else the first; tokens and feature maps are averaged.
        size: (H, W) for a file that takes any; 224 x 224 by default.

    Pixels are normalised by what the file's metadata call mean and std ("0.5 0.5 0.5"), or else as CLIP does it.

    Raises:
        InputError: The file cannot be read, or has other inputs.
        MissingPackage: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None):
        self.name = "the built-in encoder" if Path(path) == BUILT_IN else str(path)
        self._session = _session(Path(path))
        self._input = _only_input(self._session, self.name)
        fixed = [n if isinstance(n, int) and n > 0 else None for n in self._input.shape]
        self.size = self._size(fixed[2:], size)
        self._rows = fixed[0] or PER_CALL
        self._fixed_rows = fixed[0] is not None
        names = [output.name for output in self._session.get_outputs()]
        self._output = next((name for name in _EMBEDDINGS if name in names), names[0])
        about = self._session.get_modelmeta().custom_metadata_map
        self._mean, self._std = (
            _three(about.get(key), default, self.name) for key, default in (("mean", CLIP_MEAN), ("std", CLIP_STD))
        )

    def encode(self, images: Sequence[Tensor]) -> Embeddings:
        """Returns vectors (B, D) as `Encoder.encode` does; also raises InputError where onnxruntime fails."""
        pixels = np.concatenate([fitted(image, self.size).numpy() for image in images])
        pixels = (pixels - self._mean) / self._std
        pixels = pixels.astype(np.float16 if "float16" in self._input.type else np.float32)
        parts = [self._run(pixels[start : start + self._rows]) for start in range(0, len(pixels), self._rows)]
        return _finite(np.concatenate(parts), self.name)

    def _run(self, pixels: NDArray[Any]) -> Embeddings:
        count = len(pixels)
        if self._fixed_rows and count < self._rows:
            pixels = np.concatenate([pixels, pixels[-1:].repeat(self._rows - count, 0)])
        try:
            (outputs,) = self._session.run([self._output], {self._input.name: pixels})
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise InputError(f"{self.name} cannot encode images of {self.size}: {first_line(error)}") from error
        return _pooled(np.asarray(outputs), self.name)[:count]

    def _size(self, fixed: list[int | None], wanted: tuple[int, int] | None) -> tuple[int, int]:
        height, width = (side or usual for side, usual in zip(fixed, wanted or (DYNAMIC_SIZE,) * 2, strict=True))
        if wanted is not None and (height, width) != wanted:
            raise InputError(f"{self.name} takes images of {height}x{width} pixels only: leave out the size")
        return height, width


class ClipEncoder:
    """The image side of a CLIP model in transformers' layout, from a folder.

    Raises:
        InputError: The folder holds no CLIP, or its weights only as pickles.
        MissingPackage: transformers is not installed.
    """

    def __init__(self, folder: str | Path):
        transformers, folder = require("transformers", "diffusers"), Path(folder)
        self.name = str(folder)
        kind = read_object(folder / "config.json", LARGEST, "config", _CHOICES).get("model_type")
        if kind not in ("clip", "clip_vision_model"):
            raise InputError(f"{folder} holds a model of type {kind!r}, no CLIP: {_CHOICES}")
        try:
            self._model = transformers.CLIPVisionModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder} cannot be loaded ({first_line(error)}): get the folder again") from error
        side = self._model.config.image_size
        self.size = (side, side)
        settings = folder / "preprocessor_config.json"
        about = read_object(settings, LARGEST, "config", _CHOICES) if settings.is_file() else {}
        self._mean = torch.tensor(about.get("image_mean", CLIP_MEAN)).view(1, 3, 1, 1)
        self._std = torch.tensor(about.get("image_std", CLIP_STD)).view(1, 3, 1, 1)

    @torch.no_grad()
    def encode(self, images: Sequence[Tensor]) -> Embeddings:
        """Returns vectors (B, D) as `Encoder.encode` does."""
        pixels = (torch.cat([fitted(image, self.size) for image in images]) - self._mean) / self._std
        parts = [self._model(part.to(self._model.dtype)).image_embeds for part in pixels.split(PER_CALL)]
        return _finite(torch.cat(parts).float().numpy(), self.name)


def open_encoder(source: "str | Path | Encoder | None" = None) -> Encoder:
    """Opens an image encoder.

    Args:
        source: An .onnx file, a CLIP folder, or an encoder, which is returned as it is; None for the built-in one.

    Raises:
        InputError: The source is none of these, or cannot be read.
        MissingPackage: onnxruntime or transformers is not installed.
    """
    if source is None:
        return OnnxEncoder(BUILT_IN)
    if not isinstance(source, str | Path):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        return ClipEncoder(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path} is no encoder: {_CHOICES}")
    return OnnxEncoder(path)


def _session(path: Path) -> Any:
    runtime = require("onnxruntime", "audit")
    if not path.is_file():
        raise InputError(f"there is no encoder {path}: {_CHOICES}")
    available = runtime.get_available_providers()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return runtime.InferenceSession(str(path), options, providers=[p for p in PROVIDERS if p in available])
    except Exception as error:
        raise InputError(f"{path} is no ONNX model that can be run ({first_line(error)}): export it again") from error


def _only_input(session: Any, name: str) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise InputError(f"{name} has the inputs {names}, where an image encoder has one: export its image side alone")
    (only,) = inputs
    shape = list(only.shape)
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise InputError(f"{name} takes {only.name} of shape {shape}, no images (B, 3, H, W): {_CHOICES}")
    if only.type not in ("tensor(float)", "tensor(float16)"):
        raise InputError(f"{name} takes {only.type}, not floating-point pixels: export it in float32")
    return only


def _pooled(outputs: NDArray[Any], name: str) -> Embeddings:
    """Vectors (B, D) of vectors (B, D), of tokens (B, N, D) or of feature maps (B, D, H, W)."""
    if outputs.ndim == 3:
        outputs = outputs.mean(1)
    elif outputs.ndim == 4:
        outputs = outputs.mean((2, 3))
    if outputs.ndim != 2:
        raise InputError(f"{name} answers with shape {outputs.shape}, no embeddings (B, D): {_CHOICES}")
    return outputs.astype(np.float32)


def _finite(embeddings: Embeddings, name: str) -> Embeddings:
    if not np.isfinite(embeddings).all():
        raise NonFiniteError(f"the encoder {name} answered with NaN or infinity: use another, or export it in float32")
    return embeddings


def _three(text: str | None, default: tuple[float, ...], name: str) -> NDArray[np.float32]:
    try:
        values = [float(part) for part in text.split()] if text is not None else list(default)
    except ValueError:
        values = []
    if len(values) != 3:
        raise InputError(f"{name} says in its metadata to normalise by {text!r}, not three numbers: export it again")
    return np.array(values, np.float32).reshape(1, 3, 1, 1)
