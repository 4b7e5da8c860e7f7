"""Signatures of known models, in files: `NAME.signature.safetensors`, settings in the header, tensors beside them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError
from ..progress import Progress
from ..signals.spectral import RINGS, SEED, Plan, check_plan, cosine_distance, length, signature
from ..strict_json import parse_json
from ..tensors import read_tensors, write_tensors

SCHEMA = "cryptomnesia/signature/1"
SUFFIX = ".signature.safetensors"
KEPT = 4  # latents that a file keeps, to ask another denoiser about the same
_FIELDS = {"schema", "name", "fingerprint", "family", "dtype", "latent_shape", "plan", "seed", "author_compat", "n"}


@dataclass(frozen=True)
class Signatures:
    """What one model's signature looks like on images of its own.

    Attributes:
        name: What people call the model.
        fingerprint, family, dtype: What identifies the denoiser that was measured.
        latent_shape: Shape (C, H, W) of one latent.
        plan, seed, author_compat: Settings of `signature`; only signatures with equal ones can be compared.
        values: (n, N) float32, one signature per image, on the CPU.
        latents: (m, C, H, W) float32 with m <= n, the latents of the first m signatures.
    """

    name: str
    fingerprint: str
    family: str
    dtype: str
    latent_shape: tuple[int, int, int]
    plan: Plan
    seed: int
    author_compat: bool
    values: Tensor
    latents: Tensor

    @staticmethod
    def measure(
        denoiser: Denoiser,
        latents: Tensor,
        name: str,
        *,
        plan: Plan = "5step",
        seed: int = SEED,
        author_compat: bool = False,
        keep: int = KEPT,
        progress: Progress | None = None,
    ) -> "Signatures":
        """Measures the signatures of a model on latents (n, C, H, W) of its own images, and returns them.

        The first `keep` latents are kept with them. Raises what `signature` raises, and InputError for an odd name.
        """
        values = signature(denoiser, latents, plan=plan, seed=seed, author_compat=author_compat, progress=progress)
        shape = tuple(latents.shape[1:])
        kept = latents[:keep].float().cpu().clone()
        about = (denoiser.fingerprint, denoiser.family, str(denoiser.dtype), shape)
        return Signatures(_name(name), *about, plan, seed, author_compat, values, kept)  # type: ignore[arg-type]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.values)

    @property
    def settings(self) -> tuple[str, int, bool]:
        """(plan, seed, author_compat): what two signatures must share."""
        return self.plan, self.seed, self.author_compat

    @cached_property
    def prototype(self) -> Tensor:
        """(N,) float64, the mean signature."""
        return self.values.double().mean(0)

    @cached_property
    def spread(self) -> Tensor:
        """(n,) float64 cosine distance of each signature to the mean of the others; empty if there are no others."""
        if self.n < 2:
            return torch.empty(0, dtype=torch.float64)
        values = self.values.double()
        others = (values.sum(0) - values) / (self.n - 1)
        return torch.cat([cosine_distance(v[None], o[None])[0] for v, o in zip(values, others, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, and for a sidecar's findings: what was measured, and a digest of the numbers."""
        numbers = self.values.contiguous().numpy().astype("<f4").tobytes()
        return {
            "kind": "signature",
            "name": self.name,
            "fingerprint": self.fingerprint,
            "plan": self.plan,
            "seed": str(self.seed),
            "author_compat": self.author_compat,
            "images": self.n,
            "sha256": hashlib.sha256(numbers).hexdigest(),
        }

    def save(self, path: str | Path) -> None:
        """Writes the file atomically. Raises InputError for another ending or a folder that cannot be written to."""
        path = Path(path)
        if not path.name.endswith(SUFFIX):
            raise InputError(f"signatures are saved as NAME{SUFFIX}, not as {path.name!r}: rename it")
        header = {
            "schema": SCHEMA,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "family": self.family,
            "dtype": self.dtype,
            "latent_shape": json.dumps(list(self.latent_shape)),
            "plan": self.plan,
            "seed": str(self.seed),
            "author_compat": json.dumps(self.author_compat),
            "n": str(self.n),
        }
        write_tensors(path, {"signatures": self.values, "latents": self.latents}, header, "signature file")

    @staticmethod
    def load(path: str | Path) -> "Signatures":
        """Returns the signatures in a file that `save` wrote. Raises InputError for a missing, extra or odd part."""
        path = Path(path)
        header, tensors = read_tensors(path, "signature file")
        if header.get("schema") != SCHEMA:
            raise InputError(f"{path} is no signature file of this version ({SCHEMA}): measure the model again")
        if set(header) != _FIELDS or set(tensors) != {"signatures", "latents"}:
            odd = sorted((set(header) ^ _FIELDS) | (set(tensors) ^ {"signatures", "latents"}))
            raise InputError(f"the signature file {path} has odd parts ({', '.join(odd)}): measure again")
        try:
            return _parse(header, tensors)
        except (TypeError, ValueError) as error:
            raise InputError(f"the signature file {path} is malformed ({error}): measure the model again") from error


def load_library(path: str | Path) -> list[Signatures]:
    """Reads all signature files of a folder by name, or one file.

    Returns:
        One entry per file.

    Raises:
        InputError: There is none, one is malformed, or they cannot be used together.
    """
    path = Path(path)
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no *{SUFFIX}: make some with `cryptomnesia signature`")
    return check_library([Signatures.load(file) for file in files])


def check_library(entries: Sequence[Signatures]) -> list[Signatures]:
    """Checks that entries can be compared with each other, and returns them as a list.

    Raises:
        InputError: No entry, two of the same name, or entries with different settings.
    """
    if not entries:
        raise InputError("the library is empty: give at least one model's signatures")
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two entries of the library are called {name!r}: rename or remove one")
    check_settings(entries)
    return list(entries)


def check_settings(entries: Sequence[Signatures]) -> None:
    """Raises InputError unless all were measured alike: only then can they be compared."""
    first = entries[0]
    for entry in entries:
        for what, ours, theirs in zip(("plan", "seed", "author_compat"), first.settings, entry.settings, strict=True):
            if ours != theirs:
                raise InputError(
                    f"the library mixes signatures: {first.name!r} has {what} {ours}, {entry.name!r} has {theirs}; "
                    "measure one of them again"
                )


def _name(name: str) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise InputError(f"the name of a model is one line of at most 200 characters, not {name!r:.40}")
    return name.strip()


def _parse(header: dict[str, str], tensors: dict[str, Tensor]) -> Signatures:
    shape, compat = parse_json(header["latent_shape"]), parse_json(header["author_compat"])
    values, latents = tensors["signatures"], tensors["latents"]
    check_plan(header["plan"])
    n, size = int(header["n"]), length(header["plan"])  # type: ignore[arg-type]
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(v) is int and v > 0 for v in shape)):
        raise ValueError(f"the latent shape is {header['latent_shape']}")
    if not isinstance(compat, bool):
        raise ValueError(f"author_compat is {compat!r}")
    if n < 1 or tuple(values.shape) != (n, size):
        raise ValueError(f"{n} signatures of {size} numbers do not lie in {tuple(values.shape)}")
    if len(latents) > n or tuple(latents.shape[1:]) != tuple(shape):
        raise ValueError(f"latents of shape {tuple(latents.shape)}")
    if values.dtype != torch.float32 or latents.dtype != torch.float32:
        raise ValueError("the numbers are not float32")
    sums = values.double().view(n, -1, RINGS).sum(-1)
    if not (torch.isfinite(latents).all() and (values >= 0).all() and (sums - 1).abs().max() < 1e-3):
        raise ValueError("the values are no signatures")
    about = (header["fingerprint"], header["family"], header["dtype"], tuple(shape))
    seed = int(header["seed"])
    return Signatures(_name(header["name"]), *about, header["plan"], seed, compat, values, latents)  # type: ignore[arg-type]
