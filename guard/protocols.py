"""What a host may add to a Denoiser: reading prompts, an autoencoder, a pipeline around the network.

A function that needs one of these takes a Denoiser and asks for it here, so that one that lacks it is refused in one
clear line. Its own empty prompt (`Denoiser.empty`) every model has.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Module

from .condition import Condition, Score, Span
from .errors import InputError, NotApplicable


@runtime_checkable
class PromptEncoder(Protocol):
    """Turns prompts into conditions; enough to check and to calibrate."""

    def encode(self, prompt: Any) -> Condition:
        """Returns the condition of one prompt or several, one row each. Raises InputError for what is no prompt."""
        ...


@runtime_checkable
class TextDenoiser(PromptEncoder, Protocol):
    """Also tells what becomes of a prompt's words; needed to rewrite them."""

    def truncated(self, prompt: str) -> bool:
        """Returns whether a part of the prompt reaches no text encoder."""
        ...

    def significance(self, prompt: str, spans: Sequence[Span], score: Score) -> list[float]:
        """Returns the saliency of each character range, >= 0: how strongly the score depends on it; higher = more."""
        ...


@runtime_checkable
class WordRows(TextDenoiser, Protocol):
    """Also tells where words are in a condition; needed to attenuate them."""

    def token_rows(self, prompt: str, spans: Sequence[Span]) -> list[list[int]]:
        """Returns which rows of the text belong to each character range; none for what is cut off.

        Raises NotApplicable where that is not known.
        """
        ...


@runtime_checkable
class ImageDenoiser(Protocol):
    """Has an autoencoder."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Returns latents (B, C, h, w), the posterior mean scaled, of images in [0, 1], (B, 3, H, W)."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Returns images in [0, 1], (B, 3, H, W), of latents (B, C, h, w)."""
        ...


@runtime_checkable
class PipeHolder(Protocol):
    """Belongs to a pipeline."""

    @property
    def pipe(self) -> Any:
        """The pipeline."""
        ...


@runtime_checkable
class PipelineDenoiser(PipeHolder, TextDenoiser, Protocol):
    """Belongs to a pipeline that samples, whose calls of the network can be watched."""

    @property
    def network(self) -> Any:
        """The denoising network that the pipeline holds now."""
        ...

    @property
    def text_encoders(self) -> list[Any]:
        """The text encoders that the pipeline holds now, in order."""
        ...

    @property
    def text_lock(self) -> AbstractContextManager[Any]:
        """The lock that is held while text is encoded."""
        ...

    def packed(self, latents: Tensor) -> Tensor:
        """Returns latents (B, C, H, W) as the pipeline's own call takes them."""
        ...

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        """Returns conditions, one row per image, as the pipeline's own call takes them in place of texts."""
        ...

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        """Returns a call that the pipeline made of its network: (x, time, condition, raw).

        Raises NotApplicable where it cannot be read.
        """
        ...


@runtime_checkable
class NetworkHolder(Protocol):
    """Has its network at hand."""

    @property
    def network(self) -> Any:
        """The denoising network; no torch module where it runs elsewhere."""
        ...


@runtime_checkable
class AdaptedDenoiser(Protocol):
    """Knows what is loaded into it."""

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """The names of the LoRAs that take part now."""
        ...


def encoder_of(denoiser: object) -> PromptEncoder:
    """Returns the model as one that reads prompts. Raises InputError where it cannot."""
    if not isinstance(denoiser, PromptEncoder):
        raise InputError("this model cannot encode prompts: give it an `encode`, or ask about conditions")
    return denoiser


def text_of(denoiser: object) -> TextDenoiser:
    """Returns the model as one that tells what becomes of words. Raises InputError where it cannot."""
    if not isinstance(denoiser, TextDenoiser):
        raise InputError("this model cannot tell what a prompt's words do: give it `encode` and `significance`")
    return denoiser


def rows_of_words(denoiser: object) -> WordRows:
    """Returns the model as one that tells which rows belong to which word. Raises NotApplicable where it cannot."""
    if not isinstance(denoiser, WordRows):
        raise NotApplicable(
            "which rows of the text belong to which word is not known of this model, so that no token can "
            "be attenuated: use rewrite or embed"
        )
    return denoiser


def pipeline_of(
    denoiser: object, do: str = "sample", instead: str = "give one in place of a bare Denoiser"
) -> PipelineDenoiser:
    """Returns the model as one of a pipeline.

    Args:
        denoiser: The model.
        do: What only a pipeline can do.
        instead: What to do instead, for the message.

    Raises:
        InputError: It belongs to none.
    """
    if not isinstance(denoiser, PipelineDenoiser):
        raise InputError(f"only a pipeline can {do}: {instead}")
    return denoiser


def network_of(denoiser: object) -> Module:
    """Returns the network whose weights the model answers with. Raises NotApplicable where there is no torch module."""
    network = denoiser.network if isinstance(denoiser, NetworkHolder) else None
    if not isinstance(network, Module):
        raise NotApplicable("this model's weights are not at hand, which gradients need: give a pipeline, or a module")
    return network
