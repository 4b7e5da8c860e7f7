"""One ONNX file as a function of torch's tensors, run by onnxruntime."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, OutOfMemory, require

PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider")
_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
}
_TEXTS = {".json", ".txt", ".md"}  # what lies beside a network and is no part of it


class Session:
    """An ONNX file as a function of tensors, whose names and types are read from the file.

    Args:
        file: The file; what it keeps outside of itself lies in the same folder.
        needs: Inputs that it must have; with none named, it has one, whatever its name.
        may: Inputs that it may have besides.
        providers: onnxruntime's, the preferred one first; by default those of PROVIDERS that are installed.

    Attributes:
        inputs: The names of the inputs.
        outputs: The names of the outputs.
        dtype: The dtype of the first output.

    Raises:
        InputError: The file cannot be run, or takes something else, or there is no such provider.
        MissingPackage: onnxruntime is not installed.
    """

    def __init__(
        self,
        file: Path,
        needs: Sequence[str] = (),
        may: Sequence[str] = (),
        *,
        providers: Sequence[str] | None = None,
    ):
        ort = require("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised, and need not be printed as well
        chosen = _available(ort.get_available_providers(), providers)
        try:
            self._session = ort.InferenceSession(str(file), options, providers=chosen)
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise InputError(
                f"{file} cannot be run by onnxruntime {ort.__version__} ({_reason(error, file)}): get it again with "
                "all files beside it, or export it with an opset that this version knows"
            ) from error
        self.file, nodes = file, self._session.get_inputs()
        self._types = {node.name: _dtype(file, node) for node in nodes}
        self._shapes = {node.name: node.shape for node in nodes}
        self.inputs, self.outputs = list(self._types), [node.name for node in self._session.get_outputs()]
        self.dtype = _dtype(file, self._session.get_outputs()[0])
        self._check_inputs(needs, may)

    def takes_one_number(self, name: str) -> bool:
        """Returns whether an input is a single number, for all rows of a call."""
        return all(size == 1 for size in self._shapes[name])

    def __call__(self, **tensors: Tensor | None) -> list[Tensor]:
        """Returns all outputs in order. Inputs are converted to what the file takes; what it does not take is left out.

        Raises:
            InputError: An input is lacking, or of a shape that the file cannot take.
            OutOfMemory: The device has no memory for so many rows.
        """
        given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        lacking = [name for name in self.inputs if name not in given]
        if lacking:
            raise InputError(f"{self.file} asks for {', '.join(lacking)}, which its pipeline does not give")
        feed = {name: self._fed(name, given[name]) for name in self.inputs}
        try:
            return [torch.from_numpy(found) for found in self._session.run(None, feed)]
        except Exception as error:  # onnxruntime's errors have no base of their own
            if "allocate memory" in str(error) or "out of memory" in str(error).lower():
                raise OutOfMemory(f"the device has no memory for such a call of {self.file}") from error
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in feed.items())
            raise InputError(
                f"{self.file} cannot take {shapes} ({_reason(error, self.file)}): export it for that"
            ) from error

    def _fed(self, name: str, tensor: Tensor) -> Any:
        tensor = tensor.detach().to("cpu", self._types[name])
        return (tensor.reshape(self._shapes[name]) if self.takes_one_number(name) else tensor).numpy()

    def digest(self) -> bytes:
        """Returns the SHA-256 of the file and of what it keeps outside of itself."""
        digest = hashlib.sha256()
        for file in sorted(self.file.parent.iterdir()):
            if file.is_file() and file.suffix not in _TEXTS and not file.name.startswith("."):
                digest.update(f"{file.name} {file.stat().st_size} ".encode())
                with file.open("rb") as opened:
                    while part := opened.read(2**22):
                        digest.update(part)
        return digest.digest()

    def _check_inputs(self, needs: Sequence[str], may: Sequence[str]) -> None:
        found = set(self.inputs)
        fits = set(needs) <= found <= {*needs, *may} if needs else len(found) == 1
        if not fits:
            wanted = ", ".join(needs) or "a single one"
            raise InputError(f"{self.file} has the inputs {', '.join(self.inputs)}, not {wanted}: is it another part?")
        fixed = [name for name in self.inputs if self._shapes[name] and isinstance(self._shapes[name][0], int)]
        if any(not self.takes_one_number(name) for name in fixed):
            raise InputError(f"{self.file} takes a fixed number of rows only: export it with a dynamic batch axis")


def _available(installed: Sequence[str], chosen: Sequence[str] | None) -> list[str]:
    if chosen is None:
        return [name for name in PROVIDERS if name in installed]
    unknown = [name for name in chosen if name not in installed]
    if unknown or not chosen:
        raise InputError(
            f"onnxruntime has no provider {', '.join(unknown) or 'named'}: use one of {', '.join(installed)}, or "
            "install the onnxruntime package that brings it, e.g. onnxruntime-gpu"
        )
    return list(chosen)


def _dtype(file: Path, node: Any) -> torch.dtype:
    if node.type not in _DTYPES:
        raise InputError(f"{file} has {node.name} of the type {node.type}, which is not supported: export in float32")
    return _DTYPES[node.type]


def _reason(error: Exception, file: Path) -> str:
    """What onnxruntime says, in a line, without its codes and the file's path."""
    words = str(error).split(" : ", 3)[-1].replace(str(file), file.name)
    return " ".join(words.split())[:160]
