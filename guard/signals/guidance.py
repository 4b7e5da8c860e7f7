"""Guidance vectors at pure noise, of any conditions on fixed noise: what the score and every mitigation stand on."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..denoiser import Condition, Denoiser
from ..errors import InputError, OutOfMemory
from .batching import default_rows
from .rings import ring_energy


class Guidance:
    """g = noise(x_T, T, c) - noise(x_T, T, empty) for fixed draws of x_T; the empty prompt is asked once.

    For flow matching the difference of velocities, since there is nothing but noise in x_T at s = 1. Where the model's
    reference is "guidance scales", the difference of both scales' answers, divided by that of the scales.

    Args:
        denoiser: The model.
        noise: The draws, (draws, C, H, W), standard normal.
        batch_rows: Most rows a call has; see `batching.default_rows`.

    Attributes:
        forward_rows: Rows that went through the network so far.
        backward_rows: Rows that were differentiated so far.

    Raises:
        InputError: The noise is not (draws, C, H, W).
        NotApplicable: See `Denoiser.require_guidance`.
    """

    def __init__(self, denoiser: Denoiser, noise: Tensor, *, batch_rows: int | None = None):
        denoiser.require_guidance()
        if noise.ndim != 4 or not len(noise):
            raise InputError(f"noise has shape {tuple(noise.shape)}: give (draws, C, H, W)")
        self.denoiser = denoiser
        with torch.inference_mode(False):
            self.noise = noise.to(denoiser.device).clone()
            self._level = denoiser.levels.pure_noise
        self.batch_rows = batch_rows or default_rows(noise[0].numel(), denoiser.device)
        self.forward_rows = self.backward_rows = 0
        self._empty: Tensor | None = None

    def save_memory(self) -> bool:
        """Takes one row at a time from now on, computed again for its gradient. Returns False if that is so already."""
        saved, self.batch_rows = self.batch_rows > 1, 1
        return saved

    @property
    def empty(self) -> Tensor:
        """The network's answer to the empty prompt for each draw, (draws, C, H, W)."""
        if self._empty is None:
            self._empty = self._pull_of(self.denoiser.empty, grad=False)[0]
        return self._empty

    def __call__(self, condition: Condition, *, grad: bool = False) -> Tensor:
        """Returns guidance vectors (P, draws, C, H, W) float32; with `grad`, differentiable in the condition's tensors.

        Raises:
            NonFiniteError: The model answered with NaN or infinity.
            OutOfMemory: Not even one row fits.
        """
        asked = self.denoiser.branches(condition)
        lower = self.empty if asked.shared else self._pull_of(asked.lower, grad)
        return (self._pull_of(asked.upper, grad) - lower) / asked.width

    def spectrum(self, condition: Condition, *, grad: bool = False) -> Tensor:
        """Returns the energy (P, 8) per ring of the draws' mean guidance vector; see `MemorizationResult.spectrum`."""
        return ring_energy(self(condition, grad=grad).mean(1))

    def _pull_of(self, condition: Condition, grad: bool) -> Tensor:
        draws = len(self.noise)
        prompt = torch.arange(len(condition)).repeat_interleave(draws)
        draw = torch.arange(draws).repeat(len(condition))
        parts, start = [], 0
        # what is kept must serve gradients later, even if asked for in inference mode
        with torch.inference_mode(False):
            while start < len(prompt):
                rows = slice(start, start + self.batch_rows)
                try:
                    parts.append(self._ask(self.noise[draw[rows]], condition[prompt[rows]], grad))
                except OutOfMemory:
                    if not self.save_memory():
                        raise
                    continue
                start += len(parts[-1])
        self.forward_rows += len(prompt)
        self.backward_rows += len(prompt) if grad else 0
        return torch.cat(parts).view(len(condition), draws, *self.noise.shape[1:])

    def _ask(self, x: Tensor, condition: Condition, grad: bool) -> Tensor:
        def ask(x: Tensor, *values: Tensor) -> Tensor:
            row_condition = Condition(**dict(zip(condition.tensors, values, strict=True)))
            return self.denoiser.predict(x, self._level, row_condition, grad=grad).pull

        values = condition.tensors.values()
        if grad and self.batch_rows == 1:
            return checkpoint(ask, x, *values, use_reentrant=False)  # type: ignore[return-value]
        return ask(x, *values)
