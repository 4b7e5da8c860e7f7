"""What all diffusers pipelines share as denoisers: reading the pipe, sizes, autoencoder, fingerprint.

Everything is read from the pipe at call time, so that a LoRA, another scheduler or a swapped network is seen; nothing
is written to it. diffusers itself is not imported: the pipeline brings its classes along.
"""

import threading
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..condition import Score, Span, occlusion_saliency
from ..denoiser import Condition, PredictionType, reference_settings, texts_of
from ..errors import InputError, NotApplicable
from ..identity import fingerprint
from ..levels import Levels
from ..prompt_text import LONGEST
from . import autoencoder
from .last_look import LastLook
from .modules import active_adapters, edits, glance, weights
from .network import FEW_STEPS, PipelineNetwork
from .plain_calls import plainly
from .quiet import quietly
from .settings import level_settings, text_settings
from .tokens import token_rows, token_saliency

_PREDICTION_TYPES: dict[str, PredictionType] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}


class PipelineDenoiser(PipelineNetwork):
    """A text-to-image pipeline as a denoiser.

    Attributes:
        argument_names: What the pipeline's call names the tensors of a condition, behind an optional "negative_".
        also_told: Arguments of the network's forward that say nothing beside the prompt in this family.
        text_lock: Held while text is encoded, by all denoisers: tokenizers and encoders serve one thread at a time.
    """

    argument_names: ClassVar = {
        "text": "prompt_embeds",
        "pooled": "pooled_prompt_embeds",
        "mask": "prompt_attention_mask",
    }
    also_told: tuple[str, ...] = ()
    text_lock = threading.RLock()

    def __init__(self, pipe: Any):
        super().__init__(pipe)
        self._levels: tuple[Any, Levels] | None = None
        self._empty: tuple[Any, Condition] | None = None
        self._fingerprint: tuple[Any, str] | None = None
        self._last_look = LastLook()

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        """Returns a call that the pipeline made of its network, in the terms of `output`: (x, time, condition, raw).

        Args:
            arguments: The arguments of the network's forward, by name.
            output: What it returned.

        Raises:
            NotApplicable: This family's calls cannot be read.
        """
        raise NotApplicable(f"the calls of {type(self.pipe).__name__} cannot be read while it samples: use check()")

    # --- noise levels ---

    @property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        name = self.pipe.scheduler.config.get("prediction_type", "epsilon")
        if name not in _PREDICTION_TYPES:
            raise InputError(
                f"the scheduler's prediction type {name!r} is not one of {', '.join(_PREDICTION_TYPES)}: "
                "give the pipe the scheduler that its model was trained with"
            )
        return _PREDICTION_TYPES[name]

    @property
    def levels(self) -> Levels:  # type: ignore[override]
        """The levels by the scheduler's configuration alone; its timesteps and step index play no part."""
        key = (type(self.pipe.scheduler), dict(self.pipe.scheduler.config))
        if self._levels is None or self._levels[0] != key:
            self._levels = key, self._make_levels()
        return self._levels[1]

    def _make_levels(self) -> Levels:
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)  # a copy
        alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
        if alphas_cumprod is None:
            raise InputError(
                f"{type(scheduler).__name__} has no alphas_cumprod, which {type(self.pipe).__name__} needs: "
                "give the pipe a discrete scheduler, e.g. DDIMScheduler.from_config(pipe.scheduler.config)"
            )
        few = type(scheduler).__name__ in FEW_STEPS
        return Levels(alphas_cumprod, first=len(alphas_cumprod) - 1 if few else None)

    # --- sizes ---

    @property
    def _channels(self) -> int:
        """The number of channels of the latents. Raises InputError where the network takes more than these."""
        channels = self._network_channels
        config = getattr(getattr(self.pipe, "vae", None), "config", {})
        made = config.get("latent_channels") or config.get("z_dim")
        if made is not None and made != channels:
            raise InputError(
                f"the network takes {channels} channels and the autoencoder makes {made}: it is one for inpainting, "
                "editing or upscaling, which starts from an image; give the model that makes images from text alone"
            )
        return channels

    @property
    def _network_channels(self) -> int:
        return self.network.config.in_channels

    @property
    def _factor(self) -> int:
        """What an image's height and width must be divisible by, in pixels."""
        return self.pipe.vae_scale_factor * int(self.network.config.get("patch_size", None) or 1)

    @property
    def _sample_size(self) -> tuple[int, int]:
        """Height and width of the latent at the model's own size."""
        size = getattr(self.pipe, "default_sample_size", None) or self.network.config.sample_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns (C, H, W) of the latent of a height x width image in pixels; None means the model's own.

        Raises:
            InputError: A size is not a positive multiple of the pipeline's factor.
        """
        sides, scale = [], self.pipe.vae_scale_factor
        for name, pixels, own in zip(("height", "width"), (height, width), self._sample_size, strict=True):
            pixels = own * scale if pixels is None else pixels
            if pixels <= 0 or pixels % self._factor:
                raise InputError(f"{name} {pixels} is not a positive multiple of {self._factor}, as this model needs")
            sides.append(pixels // scale)
        return self._channels, sides[0], sides[1]

    def pixels(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns height and width of the images whose latents are (C, H, W)."""
        return shape[1] * self.pipe.vae_scale_factor, shape[2] * self.pipe.vae_scale_factor

    def packed(self, latents: Tensor) -> Tensor:
        """Returns latents (B, C, H, W) as the pipeline's own call takes them."""
        return latents

    # --- text ---

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        """Returns conditions, one row per image, as the pipeline's own call takes them in place of texts."""
        found = {}
        for prefix, condition in (("", positive), ("negative_", negative)):
            for name, tensor in ({} if condition is None else condition.tensors).items():
                if name in self.argument_names:
                    found[prefix + self.argument_names[name]] = tensor
        return found

    @abstractmethod
    def _encode(self, prompts: list[str]) -> Condition:
        """The pipeline's public encode_prompt, without guidance."""

    @abstractmethod
    def _tokenizers(self) -> list[tuple[Any, int]]:
        """Each tokenizer whose text encoder is there, with the number of tokens after which the pipeline cuts."""

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        """Returns the condition of one or more prompts, one row each.

        As in the pipeline, what exceeds the text encoders' length is cut off; `truncated` tells.

        Raises:
            InputError: No prompt, or something that is none: see `texts_of`.
        """
        prompts = texts_of(prompt)
        self._require_text()
        # usable with gradients later even if asked for in inference mode
        with self.text_lock, quietly(), torch.inference_mode(False), torch.no_grad():
            return self._encode(prompts)

    @property
    def empty(self) -> Condition:
        """The empty prompt's condition, (1, ...); computed again when the text encoders or the reference change."""
        self._require_text()
        key: list[Any] = [tokenizer for tokenizer, _ in self._tokenizers()]
        for encoder in self.text_encoders:
            key.append((encoder, encoder.dtype, self._last_look.peculiarities(encoder), edits(encoder)))
        key += [self.device, self.reference]
        if self._empty is None or self._empty[0] != key:
            self._empty = key, self._encode_empty()
        return self._empty[1]

    def _encode_empty(self) -> Condition:
        return self.encode("")

    def truncated(self, prompt: str) -> bool:
        """Returns whether a part of the prompt reaches no text encoder, because it is longer than any of them reads."""
        if len(prompt) > LONGEST:
            return True  # tokenizers take minutes for the longest
        with self.text_lock, quietly():
            return all(
                len(tokenizer(self._converted(prompt, tokenizer)).input_ids) > limit
                for tokenizer, limit in self._tokenizers()
            )

    def significance(self, prompt: str, spans: Sequence[Span], score: Score) -> list[float]:
        """Returns the saliency of each character range of the prompt, by gradients where the encoders have them.

        Returns:
            One number >= 0 per span, higher = the score depends more on it; see `tokens.token_saliency` and, for
            encoders without gradients, `condition.occlusion_saliency`.
        """
        if not self.differentiable:
            return occlusion_saliency(self.encode, prompt, spans, score)
        plain = plainly(self.network, *self.text_encoders, grad=True)
        with self.text_lock, quietly(), suppress(NotApplicable), plain:
            tokenizers = self._tokenizers()
            return token_saliency(
                self.text_encoders[: len(tokenizers)],  # others read but a part of some prompts
                tokenizers,
                lambda text: self._encode([text]),
                prompt,
                spans,
                lambda condition: score(condition, True),
            )
        return occlusion_saliency(self.encode, prompt, spans, score)

    def token_rows(self, prompt: str, spans: Sequence[Span]) -> list[list[int]]:
        """Returns which rows of the text belong to each character range of the prompt; none for what is cut off.

        Raises:
            NotApplicable: That is not known of the family, or a word stands for several tokens (textual inversion).
        """
        places = self._text_places()
        if not places:
            raise NotApplicable(
                f"which rows of the text belong to which word is not known of {type(self.pipe).__name__}, so that no "
                "token can be attenuated: use rewrite or embed"
            )
        with self.text_lock, quietly():
            if any(self._converted(prompt, tokenizer) != prompt for tokenizer, _, _ in places):
                raise NotApplicable(
                    "a word of this prompt stands for several tokens of a textual inversion, and cannot be attenuated: "
                    "use rewrite or embed"
                )
            return token_rows(places, prompt, spans)

    def _text_places(self) -> list[tuple[Any, int, int]]:
        """Each tokenizer, with its limit and the row of the text that its first token is in; none if not known, or if
        attention depends on where a token is."""
        return []

    def _converted(self, prompt: str, tokenizer: Any) -> str:
        # a textual inversion may stand for several tokens
        convert = getattr(self.pipe, "maybe_convert_prompt", None)
        return prompt if convert is None else convert(prompt, tokenizer)

    # --- images ---

    def decode(self, latent: Tensor) -> Tensor:
        """Returns images in [0, 1], (B, 3, H, W) float32, of clean latents (B, C, h, w)."""
        return autoencoder.decode(self.pipe.vae, latent, self.device)

    def encode_image(self, image: Tensor) -> Tensor:
        """Returns latents (B, C, h, w) float32, the posterior mean scaled, of images in [0, 1], (B, 3, H, W).

        Raises:
            InputError: Not (B, 3, H, W), or sizes that the model cannot take.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise InputError(f"images are (B, 3, H, W) in [0, 1], not {tuple(image.shape)}")
        self.latent_shape(*image.shape[-2:])
        return autoencoder.encode(self.pipe.vae, image, self.device)

    @property
    def autoencoder_identity(self) -> str | None:
        """A digest that is equal for pipelines of equal autoencoders; None without one."""
        vae = getattr(self.pipe, "vae", None)
        return None if vae is None else autoencoder.identity(vae)

    # --- identity ---

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """The names of the LoRAs that take part now, for messages."""
        return tuple(sorted({name for part in (self.network, *self.text_encoders) for name in active_adapters(part)}))

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The digest of network, text encoders and tokenizers as they answer now, with LoRAs, hooks and the like.

        It is computed anew at every access, since any of these may come or go at any time. Raises InputError where
        weights are out of reach.
        """
        # torch.compile wraps a network without making it another model
        modules = [getattr(module, "_orig_mod", module) for module in (self.network, *self.text_encoders)]
        strange = [words for module in modules for words in self._last_look.peculiarities(module)]
        strange += [*text_settings(self), *level_settings(self)]
        strange += reference_settings(self)
        settings = (self.family, self.dtype, self.prediction_type, strange)
        key = (modules, [glance(module) for module in modules], settings)
        if self._fingerprint is None or self._fingerprint[0] != key:
            found = (weight for module in modules for weight in weights(module))
            self._fingerprint = key, fingerprint(found, *settings)
        return self._fingerprint[1]
