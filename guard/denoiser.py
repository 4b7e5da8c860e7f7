"""The one abstraction: a denoiser answers, for a noisy latent, which clean latent and which noise it consists of.

Every noisy latent is `x = alpha * x0 + sigma * noise`. A model family is a choice of (alpha, sigma) and of what its
network puts out; `Prediction.from_output` turns each into (x0, noise), in which all signals are written.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from .branches import SCALE, Branches, at_scale, without_scale
from .condition import Condition, Score, Span, occlusion_saliency, texts_of
from .errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from .identity import fingerprint, weights_of
from .levels import Levels, NoiseLevel
from .memory import memory_needed
from .own_calls import own_calls
from .reference import Reference, checked

PredictionType = Literal["epsilon", "v", "sample", "flow"]
PREDICTION_TYPES = ("epsilon", "v", "sample", "flow")


@dataclass(frozen=True)
class Prediction:
    """What a denoiser makes of a noisy latent; each (B, C, H, W) float32.

    Attributes:
        x0, noise: Clean latent and noise.
        raw: The network's own output.
        pull: What branches are compared in at pure noise: the noise, and the velocity for flow matching, whose
            noise is x itself there whatever the prompt.
    """

    x0: Tensor
    noise: Tensor
    raw: Tensor
    pull: Tensor

    @staticmethod
    def from_output(kind: PredictionType, raw: Tensor, x: Tensor, level: NoiseLevel) -> "Prediction":
        """Converts a network output, in float32.

        Args:
            kind: "epsilon" (out = noise), "v" (out = alpha noise - sigma x0, Salimans & Ho 2022, arXiv 2202.00512),
                "sample" (out = x0) or "flow" (out = noise - x0, with alpha = 1 - sigma; Liu et al. 2022,
                arXiv 2209.03003).
            raw: Network output, (B, C, H, W).
            x: The noisy latent it was asked about, (B, C, H, W).
            level: One level per row.
        """
        raw, x = raw.float(), x.float()
        alpha, sigma = (v.float().to(x.device).view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
        if kind == "epsilon":
            return Prediction((x - sigma * raw) / alpha, raw, raw, raw)
        if kind == "v":
            noise = alpha * raw + sigma * x
            return Prediction(alpha * x - sigma * raw, noise, raw, noise)
        if kind == "sample":
            noise = (x - alpha * raw) / sigma
            return Prediction(raw, noise, raw, noise)
        if kind == "flow":
            return Prediction(x - sigma * raw, x + alpha * raw, raw, raw)
        raise InputError(f"unknown prediction type {kind!r}: use one of {', '.join(PREDICTION_TYPES)}")


class Denoiser(ABC):
    """A diffusion model, seen through the one question it answers.

    Attributes:
        prediction_type: What the network puts out.
        levels: Where the model's noise levels lie.
        reference: What a prompt's answer is compared with; see `reference`.
        scales: The two guidance scales that "guidance scales" compares, ascending.
        differentiable: False where the network runs outside of torch: what needs gradients is not applicable then.
        family: Name of the model family, part of the fingerprint.
        device, dtype: Where and in what the network computes.
        input_dtype: What noisy latents are handed over in, `dtype` unless the host casts them itself.
    """

    prediction_type: PredictionType
    levels: Levels
    reference: Reference = "empty branch"
    scales: tuple[float, float] = (1.0, 7.5)
    differentiable: bool = True
    family: str = "callable"
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def require_guidance(self) -> None:  # noqa: B027  # most can always be asked
        """Raises NotApplicable, saying why, where a prompt's pull from pure noise has no meaning; here never."""

    def branches(self, condition: Condition) -> Branches:
        """Returns what the network is asked about prompts to find their guidance, by the model's reference."""
        condition = without_scale(condition)
        if self.reference != "guidance scales":
            return Branches(condition, self.empty, 1.0)
        low, high = self.scales
        return Branches(at_scale(condition, high), at_scale(condition, low), high - low)

    @property
    def input_dtype(self) -> torch.dtype:
        return self.dtype

    @abstractmethod
    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Returns the network's own output for x (B, C, H, W) at times (B,), each row with its condition."""

    @property
    @abstractmethod
    def empty(self) -> Condition:
        """The model's own empty prompt, one row; never the user's negative prompt."""

    @abstractmethod
    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns (C, H, W) of the latent of an image of that size in pixels; None means the model's own size."""

    def pixels(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Returns height and width of the images whose latents are (C, H, W); None where the host does not tell."""
        return None

    @property
    def channels(self) -> int:
        """The number of channels of the model's latents."""
        return self.latent_shape()[0]

    @cached_property
    def fingerprint(self) -> str:
        """The hex digest of weights, dtype and family; equal for equal models on any device."""
        return fingerprint([], self.family, self.dtype)

    @cached_property
    def fits(self) -> dict[tuple[int, ...], int]:
        """How many rows of a shape (C, H, W) a call has memory for; only where more were too many."""
        return {}

    def level(self, t: float | Tensor) -> NoiseLevel:
        """Returns the noise level at the model's own time t: an integer timestep, or a flow time in [0, 1]."""
        return self.levels.timestep(t)

    def predict(self, x: Tensor, level: NoiseLevel, condition: Condition | Tensor, *, grad: bool = False) -> Prediction:
        """Splits noisy latents into clean latent and noise, in one call of the network.

        Args:
            x: (B, C, H, W).
            level: One level, or one per row.
            condition: One row, or one per row of x; a bare (B, L, D) tensor is taken as the text.
            grad: Keep the graph; without, nothing is recorded.

        Raises:
            InputError: Shapes do not fit.
            NotApplicable: The graph is wanted, and the network has none.
            NonFiniteError: The network answered with NaN or infinity.
            OutOfMemory: The device has no memory for so many rows.
        """
        if x.ndim != 4:
            raise InputError(f"latents are (B, C, H, W), not {tuple(x.shape)}")
        if grad and not self.differentiable:
            raise NotApplicable(
                "this model runs outside of torch and has no gradients, which this method needs: load its torch weights"
            )
        rows, condition = len(x), Condition.of(condition)
        device = self.device  # asked once: finding out may take a walk through the network
        level = level.to(device).expand(rows)
        if len(condition) == 1 and rows > 1:
            condition = condition[[0] * rows]
        if len(condition) != rows:
            raise InputError(f"{len(condition)} conditions do not fit {rows} rows: give one, or one per row")
        with nullcontext() if grad else torch.no_grad():
            x = x.to(device)
            try:
                with own_calls(), memory_needed(_too_many(rows, x.shape[1:])):
                    raw = self.output(x.to(self.input_dtype), level.time, condition)
            except OutOfMemory:
                if not grad:  # a graph takes more
                    self.fits[tuple(x.shape[1:])] = max(1, rows // 2)
                raise
            prediction = Prediction.from_output(self.prediction_type, raw, x, level)
        if not grad and not torch.isfinite(raw).all():
            raise NonFiniteError(
                f"the model answered with NaN or infinity in {self.dtype}: no score can be drawn from that; "
                "load it in float32 or bfloat16, or check its weights"
            )
        return prediction


def _too_many(rows: int, shape: Sequence[int]) -> str:
    remedy = "ask for fewer at a time" if rows > 1 else "choose a smaller image or dtype, or offloading"
    return f"the device has no memory for {rows} rows of {tuple(shape)} in one call: {remedy}"


def reference_settings(denoiser: Denoiser) -> list[str]:
    """Returns what a model's reference adds to its fingerprint's settings; nothing for the empty branch."""
    if denoiser.reference == "empty branch":
        return []
    scales = [str(scale) for scale in denoiser.scales] if denoiser.reference == "guidance scales" else []
    return [" ".join([f"reference {denoiser.reference}", *scales])]


class CallableDenoiser(Denoiser):
    """Any function as a denoiser, for research code, unsupported pipelines and tests.

    Args:
        fn: fn(x (B, C, H, W), t (B,), condition (B, L, D)) -> raw output (B, C, H, W). t is the integer timestep, or
            the flow time in [0, 1].
        alphas_cumprod: (T,) of the discrete schedule; None for "flow".
        prediction_type: "epsilon", "v", "sample" or "flow".
        empty: The empty prompt's condition, (1, L, D).
        latent_shape: (C, H, W).
        reference: What a prompt's answer is compared with: "empty branch" where fn was trained without a prompt, too;
            "empty prompt" where it was distilled; "guidance scales" where it is told its guidance scale, as
            fn(x, t, condition, scale (B,)).
        scales: The two scales that "guidance scales" compares; the upper one is also told where nothing is compared.
        encode: encode(texts, P of them) -> (P, L, D) tensor or Condition of P rows; a Guard needs it to check texts.
        fingerprint: Identity of the weights. By default they are digested if fn is a torch module; otherwise what
            fn answers to a fixed question is.

    Example:
        >>> denoiser = CallableDenoiser(
        ...     lambda x, t, text: x + text.mean((1, 2)).view(-1, 1, 1, 1),
        ...     torch.linspace(0.999, 0.01, 1000),
        ...     empty=torch.zeros(1, 1, 1),
        ...     latent_shape=(1, 2, 2),
        ... )
        >>> answer = denoiser.predict(torch.ones(1, 1, 2, 2), denoiser.level(500), torch.full((1, 1, 1), 3.0))
        >>> answer.noise.mean().item()
        4.0
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        alphas_cumprod: Tensor | None = None,
        prediction_type: PredictionType = "epsilon",
        *,
        empty: Tensor,
        latent_shape: tuple[int, int, int],
        reference: Reference = "empty branch",
        scales: tuple[float, float] = (1.0, 7.5),
        encode: Callable[[list[str]], Condition | Tensor] | None = None,
        fingerprint: str | None = None,
    ):
        if prediction_type not in PREDICTION_TYPES:
            raise InputError(f"unknown prediction type {prediction_type!r}: use one of {', '.join(PREDICTION_TYPES)}")
        if (alphas_cumprod is None) != (prediction_type == "flow"):
            raise InputError("alphas_cumprod is needed for every prediction type but 'flow', which takes None")
        self.reference, self.scales = checked(reference, scales, True), scales
        self.fn = fn
        self.prediction_type = prediction_type
        self.levels = Levels(None if prediction_type == "flow" else torch.as_tensor(alphas_cumprod))
        self.device, self._encode = empty.device, encode
        self._empty, self._shape, self._fingerprint = Condition(text=empty), tuple(latent_shape), fingerprint

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.device)
        if self.reference != "guidance scales":
            return self.fn(x, time, text)
        scale = condition.tensors.get(SCALE, torch.full((len(x),), self.scales[1]))
        return self.fn(x, time, text, scale.to(self.device))

    @property
    def network(self) -> Callable[..., Tensor]:
        """The function, whose weights are at hand if it is a torch module."""
        return self.fn

    @property
    def empty(self) -> Condition:
        return self._empty

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        if height is not None or width is not None:
            raise InputError("a CallableDenoiser has one latent shape: build another for another size")
        return self._shape  # type: ignore[return-value]

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        """Returns the condition of one or more prompts, one row each.

        Raises:
            InputError: No `encode` was given, it gave something else, or the prompts are none: see `texts_of`.
        """
        prompts = texts_of(prompt)
        if self._encode is None:
            raise InputError(
                "this CallableDenoiser cannot read texts: give it encode=, a function from a list of P texts to a "
                "(P, L, D) tensor, or ask Guard.judge about conditions"
            )
        encoded = self._encode(prompts)
        if not isinstance(encoded, Condition | Tensor) or len(Condition.of(encoded)) != len(prompts):
            raise InputError(f"encode= gives a tensor or Condition of one row per text, {len(prompts)} for this call")
        return Condition.of(encoded)

    def truncated(self, prompt: str) -> bool:
        """Returns False: what `encode` leaves out is not known."""
        return False

    def significance(self, prompt: str, spans: Sequence[Span], score: Score) -> list[float]:
        """Returns how much the score falls without each character range of the prompt, >= 0; higher = more salient."""
        return occlusion_saliency(self.encode, prompt, spans, score)

    @cached_property
    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint
        if isinstance(self.fn, torch.nn.Module):
            return fingerprint(weights_of([self.fn]), self.family, self.dtype, *reference_settings(self))
        x = torch.linspace(-2, 2, torch.Size(self._shape).numel(), device=self.device).view(1, *self._shape)
        answer = self.predict(x, self.levels.pure_noise, self.empty).pull
        digits = [f"{value:.3g}" for value in answer.flatten()[:256].tolist()]
        words = [self.family, self.prediction_type, *reference_settings(self), *digits]
        return hashlib.sha256(" ".join(words).encode()).hexdigest()
