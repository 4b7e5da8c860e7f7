"""Guidance vectors at pure noise, of any conditions on fixed noise: what the score and every mitigation stand on."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..condition import is_empty
from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from .batching import rows_per_call
from .rings import ring_energy


class Guidance:
    """g = noise(x_T, T, c) - noise(x_T, T, empty) for fixed draws of x_T; the empty prompt is asked once.

    For flow matching the difference of velocities, since there is nothing but noise in x_T at s = 1. Where the model's
    reference is "guidance scales", the difference of both scales' answers, divided by that of the scales.

    Args:
        denoiser: The model.
        noise: The draws, (draws, C, H, W), standard normal.
        level: Where the vectors are taken, one level; by default pure noise, `denoiser.levels.pure_noise`.
        answer: What of the network's answer is compared: `pull`, or `noise`; see `Prediction`.
        batch_rows: Most rows a call has; see `batching.rows_per_call`.

    Attributes:
        noise, level: As given.
        forward_rows: Rows that went through the network so far.
        backward_rows: Rows that were differentiated so far.

    Raises:
        InputError: The noise is not (draws, C, H, W).
        NotApplicable: See `Denoiser.require_guidance`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        *,
        level: NoiseLevel | None = None,
        answer: Literal["pull", "noise"] = "pull",
        batch_rows: int | None = None,
    ):
        denoiser.require_guidance()
        if noise.ndim != 4 or not len(noise):
            raise InputError(f"noise has shape {tuple(noise.shape)}: give (draws, C, H, W)")
        self.denoiser, self._answer = denoiser, answer
        with torch.inference_mode(False):
            self.noise = noise.to(denoiser.device).clone()
            self.level = (level or denoiser.levels.pure_noise)[[0]]
        self.batch_rows = rows_per_call(denoiser, noise.shape[1:], batch_rows)
        self.forward_rows = self.backward_rows = 0
        self._empty: Tensor | None = None

    def save_memory(self) -> bool:
        """Takes one row at a time from now on, computed again for its gradient. Returns False if that is so already."""
        saved, self.batch_rows = self.batch_rows > 1, 1
        return saved

    def _halve(self) -> bool:
        saved, self.batch_rows = self.batch_rows > 1, max(1, self.batch_rows // 2)
        return saved

    @property
    def empty(self) -> Tensor:
        """The network's answer to the empty prompt for each draw, (draws, C, H, W)."""
        if self._empty is None:
            try:
                self._empty = self._pull_of(self.denoiser.empty, grad=False)[0]
            except NonFiniteError as error:
                raise empty_to_blame(self.denoiser, self.noise[:1], self.level) or error from error
        return self._empty

    def __call__(self, condition: Condition, *, grad: bool = False) -> Tensor:
        """Returns guidance vectors (P, draws, C, H, W) float32; with `grad`, differentiable in the condition's tensors.

        Errors are those of `counted`.
        """
        return self.counted(condition, grad=grad)[0]

    def counted(self, condition: Condition, *, grad: bool = False) -> tuple[Tensor, int]:
        """Returns the guidance vectors, and how many rows the network was asked for them.

        Raises:
            NotApplicable: The network ignores the guidance scale that it is told.
            NonFiniteError: The model answered with NaN or infinity.
            OutOfMemory: Not even one row fits.
        """
        vectors, _, rows = self.compared(condition, grad=grad)
        return vectors, rows

    def compared(self, condition: Condition, *, grad: bool = False) -> tuple[Tensor, Tensor, int]:
        """Returns the guidance vectors, what they start from, (P or 1, draws, C, H, W), and the rows they cost.

        Errors are those of `counted`.
        """
        asked, draws = self.denoiser.branches(condition), len(self.noise)
        rows = (len(condition) + (len(condition) if not asked.shared else self._empty is None)) * draws
        lower = self.empty if asked.shared else self._pull_of(asked.lower, grad)
        upper = self._pull_of(asked.upper, grad)
        require_effect(self.denoiser, condition, upper, lower)
        return (upper - lower) / asked.width, lower if lower.ndim == 5 else lower[None], rows

    def beside(self, condition: Condition, noise: Tensor, others: Condition) -> tuple[Tensor, Tensor, Tensor, int]:
        """Returns what `compared` returns, with the network's answers to other rows at the same level between them.

        They share calls where conditions have one shape: a few rows alone take nearly as long as a few more.

        Args:
            condition: P prompts.
            noise, others: The other rows, (R, C, H, W), and their conditions.

        Returns:
            Guidance vectors (P, draws, C, H, W), what they start from, (P or 1, draws, C, H, W), the answers
            (R, C, H, W), and how many rows the network was asked for all.

        Raises:
            NotApplicable, NonFiniteError, OutOfMemory: As `counted`.
        """
        asked, draws = self.denoiser.branches(condition), len(self.noise)
        rows = draws if asked.shared and self._empty is None else 0
        lower = self.empty if asked.shared else None
        parts = [asked.upper] if asked.shared else [asked.upper, asked.lower]
        each = torch.arange(len(condition)).repeat_interleave(draws)
        try:
            every = Condition.cat([*(part[each] for part in parts), others])
        except InputError:  # of different shapes, as where a prompt is longer than the encoder reads
            vectors, lower, more = self.compared(condition)
            answers = self._in_calls(len(others), lambda rows: (noise[rows], others[rows]), grad=False)
            return vectors, lower, answers, rows + more + len(others)
        x = torch.cat([self.noise.repeat(len(parts) * len(condition), 1, 1, 1), noise.to(self.noise.device)])
        found = self._in_calls(len(x), lambda rows: (x[rows], every[rows]), grad=False)
        split = [len(each)] * len(parts) + [len(others)]
        *mine, answers = found.split(split)
        upper, *own = (part.view(len(condition), draws, *self.noise.shape[1:]) for part in mine)
        lower = own[0] if lower is None else lower
        require_effect(self.denoiser, condition, upper, lower)
        return (upper - lower) / asked.width, lower if lower.ndim == 5 else lower[None], answers, rows + len(x)

    def spectrum(self, condition: Condition, *, grad: bool = False) -> Tensor:
        """Returns the energy (P, 8) per ring of the draws' mean guidance vector; see `MemorizationResult.spectrum`."""
        return ring_energy(self(condition, grad=grad).mean(1))

    def _pull_of(self, condition: Condition, grad: bool) -> Tensor:
        draws = len(self.noise)
        prompt = torch.arange(len(condition)).repeat_interleave(draws)
        draw = torch.arange(draws).repeat(len(condition))
        found = self._in_calls(len(prompt), lambda rows: (self.noise[draw[rows]], condition[prompt[rows]]), grad)
        return found.view(len(condition), draws, *self.noise.shape[1:])

    def _in_calls(self, count: int, pick: Callable[[slice], tuple[Tensor, Condition]], grad: bool) -> Tensor:
        """The network's answers to so many rows, (count, C, H, W), as many at a time as there is memory for."""
        parts, start = [], 0
        # what is kept must serve gradients later, even if asked for in inference mode
        with torch.inference_mode(False):
            while start < count:
                try:
                    parts.append(self._ask(*pick(slice(start, start + self.batch_rows)), grad))
                except OutOfMemory:
                    if not (self.save_memory() if grad else self._halve()):
                        raise
                    continue
                start += len(parts[-1])
        self.forward_rows += count
        self.backward_rows += count if grad else 0
        return torch.cat(parts)

    def _ask(self, x: Tensor, condition: Condition, grad: bool) -> Tensor:
        def ask(x: Tensor, *values: Tensor) -> Tensor:
            row_condition = Condition(**dict(zip(condition.tensors, values, strict=True)))
            return getattr(self.denoiser.predict(x, self.level, row_condition, grad=grad), self._answer)

        values = condition.tensors.values()
        if grad and self.batch_rows == 1:
            return checkpoint(ask, x, *values, use_reentrant=False)  # type: ignore[return-value]
        return ask(x, *values)


def empty_to_blame(denoiser: Denoiser, noise: Tensor, level: NoiseLevel) -> NonFiniteError | None:
    """Returns what to raise where the empty prompt alone is answered with NaN; None where it is not."""
    try:
        denoiser.predict(noise, level, denoiser.empty)
    except NonFiniteError:
        return NonFiniteError(
            f"the model answers the empty prompt with NaN or infinity in {denoiser.dtype}, so that there is nothing to "
            "compare a prompt with: load it in float32 or bfloat16, or, where its guidance scale is an input of the "
            "network, use the reference 'guidance scales'"
        )
    return None


def require_effect(denoiser: Denoiser, prompts: Condition, upper: Tensor, lower: Tensor) -> None:
    """Raises NotApplicable where another guidance scale makes no difference, be it the empty prompt's own."""
    if denoiser.reference != "guidance scales" or len(upper) != len(lower):
        return
    if torch.equal(upper, lower) and not is_empty(prompts, denoiser.empty, prompts):
        raise NotApplicable(
            "the network ignores the guidance scale that it is told: compare with the empty prompt instead "
            "(reference='empty prompt')"
        )
