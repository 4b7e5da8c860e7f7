"""What a LoRA adds to one weight: the forms that trainers write it in, each as a dense difference.

References:
    Hu et al. 2021, arXiv 2106.09685 (LoRA); Yeh et al. 2023, arXiv 2309.14859 (LoCon, LoHa, LoKr);
    Liu et al. 2024, arXiv 2402.09353 (DoRA).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True, kw_only=True)
class Update(ABC):
    """What is added to a weight, and to the bias beside it.

    Attributes:
        scale: The factor of the products, alpha / rank; 1 where the file tells no alpha.
        magnitude: DoRA's lengths of the rows (out, 1, ...) or columns (1, in, ...) of the changed weight; else None.
        bias: What is added to the bias, (out,); None where it stays.
    """

    scale: float = 1.0
    magnitude: Tensor | None = None
    bias: Tensor | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense update: (out, in), (out, in, height, width) of a convolution; () for a bias alone."""

    @property
    @abstractmethod
    def rank(self) -> int | None:
        """The rank that the file was made with; None for dense forms."""

    @property
    def down(self) -> Tensor | None:
        """The first factor of a plain low-rank update, (rank, in, ...) as it lies in the file; else None."""
        return None

    @property
    def up(self) -> Tensor | None:
        """The second factor of a plain low-rank update, (out, rank, ...) as it lies in the file; else None."""
        return None

    @abstractmethod
    def _dense(self) -> Tensor:
        """The products before the scale, of `shape`, float32."""

    def delta(self, dtype: torch.dtype = torch.float32, *, weight: Tensor | None = None) -> Tensor:
        """Returns what is added to the weight at strength 1.

        Args:
            dtype: The type of the result; it is computed in float32.
            weight: The weight of the base, which DoRA's answer depends on; others do without.

        Returns:
            The dense update, in the shape of `weight` where it is given, else of `shape`; on the file's device, or
            that of the weight.

        Raises:
            InputError: The weight is needed and missing, or of another size.
        """
        dense = self._dense() * self.scale
        if weight is None:
            if self.magnitude is not None:
                raise InputError("a DoRA update depends on the base's weight: give the weight, too")
            return dense.to(dtype)
        if dense.numel() != weight.numel() or dense.shape[0] != weight.shape[0]:
            raise InputError(f"an update of {_by(dense.shape)} does not fit a weight of {_by(weight.shape)}")
        dense = dense.to(weight.device).reshape(weight.shape)
        if self.magnitude is None:
            return dense.to(dtype)
        base = weight.detach().to(torch.float32)
        return (_with_lengths(base + dense, self.magnitude.to(weight.device)) - base).to(dtype)


@dataclass(frozen=True, kw_only=True)
class LowRank(Update):
    """up @ down, with a small convolution between them where a trainer has split it (LoCon's `mid`)."""

    first: Tensor
    second: Tensor
    middle: Tensor | None = None

    @property
    def down(self) -> Tensor:
        return self.first

    @property
    def up(self) -> Tensor:
        return self.second

    @property
    def rank(self) -> int:
        return self.first.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        kernel = (self.first if self.middle is None else self.middle).shape[2:]
        return (self.second.shape[0], self.first.shape[1], *kernel)

    def _dense(self) -> Tensor:
        up, down = self.second.float().flatten(1), self.first.float()
        if self.middle is not None:
            return torch.einsum("or,rs...,si->oi...", up, self.middle.float(), down.flatten(1))
        return (up @ down.flatten(1)).view(self.shape)


@dataclass(frozen=True, kw_only=True)
class Hadamard(Update):
    """LoHa: the product, value by value, of two low-rank matrices; each (left, right, core or None)."""

    factors: tuple[tuple[Tensor, Tensor, Tensor | None], ...]

    @property
    def rank(self) -> int:
        return self.factors[0][1].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        left, right, core = self.factors[0]
        if core is None:
            return (left.shape[0], right.shape[1])
        return (left.shape[1], right.shape[1], *core.shape[2:])

    def _dense(self) -> Tensor:
        first, second = (_product(*factors) for factors in self.factors)
        return first * second


@dataclass(frozen=True, kw_only=True)
class Kronecker(Update):
    """LoKr: the Kronecker product of two matrices, each whole or low-rank, as (left, right or None, core or None)."""

    factors: tuple[tuple[Tensor, Tensor | None, Tensor | None], ...]

    @property
    def rank(self) -> int | None:
        ranks = [right.shape[0] for _, right, _ in self.factors if right is not None]
        return ranks[-1] if ranks else None

    @property
    def shape(self) -> tuple[int, ...]:
        (a, b, *_), (c, d, *kernel) = (_shape_of(*factors) for factors in self.factors)
        return (a * c, b * d, *kernel)

    def _dense(self) -> Tensor:
        first, second = (_product(*factors) for factors in self.factors)
        return torch.kron(first.view(*first.shape, *[1] * (second.ndim - first.ndim)), second)


@dataclass(frozen=True, kw_only=True)
class Dense(Update):
    """The whole difference, as fully trained layers and norms have it: (out,) for a norm's, None for a bias alone."""

    difference: Tensor | None

    @property
    def rank(self) -> None:
        return None

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.difference is None else tuple(self.difference.shape)

    def _dense(self) -> Tensor:
        if self.difference is None:
            raise InputError("this update changes a bias alone: it has no difference of a weight")
        return self.difference.float()


def _product(left: Tensor, right: Tensor | None, core: Tensor | None) -> Tensor:
    if right is None:
        return left.float()
    if core is None:
        return left.float() @ right.float()
    return torch.einsum("ij...,jr,ip->pr...", core.float(), right.float(), left.float())


def _shape_of(left: Tensor, right: Tensor | None, core: Tensor | None) -> tuple[int, ...]:
    if right is None:
        return tuple(left.shape)
    return (left.shape[0], right.shape[1]) if core is None else (left.shape[1], right.shape[1], *core.shape[2:])


def _with_lengths(weight: Tensor, magnitude: Tensor) -> Tensor:
    """The weight whose rows, or columns, have these lengths; the file's shape tells which."""
    lengths = magnitude.float().flatten()
    rows = weight.shape[0] == len(lengths) and magnitude.shape[0] == len(lengths)
    if not rows and len(lengths) != weight.shape[1]:
        raise InputError(f"DoRA lengths of {_by(magnitude.shape)} do not fit a weight of {_by(weight.shape)}")
    axis = 0 if rows else 1
    own = weight.transpose(0, axis).flatten(1).norm(dim=1) + EPSILON
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * (lengths / own).view(shape)


def _by(shape: torch.Size | tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
