"""A ComfyUI MODEL as a denoiser: LoRAs, object patches, ControlNets and memory management are ComfyUI's own."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..condition import Condition, Score, Span, occlusion_saliency, texts_of
from ..denoiser import Denoiser, PredictionType, reference_settings
from ..errors import InputError, NotApplicable
from ..identity import fingerprint, schedule_settings
from ..levels import Levels
from ..memory import is_out_of_memory
from ..reference import Reference
from .comfyui_call import Conditioning, clean_latents
from .comfyui_conditioning import Templates, without_guidance
from .comfyui_families import family_of, is_distilled, own_guidance, text_width
from .comfyui_inputs import takes_images
from .comfyui_text import encoded
from .comfyui_weights import patches_of, weights_and_patches

_SAMPLINGS: dict[str, PredictionType] = {"CONST": "flow", "EDM": "sample", "V_PREDICTION": "v", "EPS": "epsilon"}
_STRANGE = ("X0", "IMG_TO_IMG", "IMG_TO_IMG_FLOW", "COSMOS_RFLOW", "V_PREDICTION_DDPM", "StableCascadeSampling")
_DISTILLED = "ModelSamplingDiscreteDistilled"


class ComfyDenoiser(Denoiser):
    """MODEL and CLIP of a ComfyUI graph. Conditions: see `Templates.read`.

    Args:
        model: A MODEL (ModelPatcher); it is not changed.
        clip: The CLIP that belongs to it, for the empty prompt and for `encode`.
        like: A CONDITIONING whose areas, masks, ControlNets and so on the empty prompt is given, too, so that guidance
            is what the words do.
    """

    input_dtype = torch.float32  # type: ignore  # ComfyUI casts where its model wants it

    def __init__(self, model: Any, clip: Any = None, like: Conditioning | None = None):
        self.model, self.clip, self._like = model, clip, like
        self._templates = Templates()
        self._base = model.model
        self._sampling = model.get_model_object("model_sampling")

    # --- what the model is ---

    @property
    def network(self) -> Any:
        """The denoising network, with the weights that it was last asked with."""
        return self._base.diffusion_model

    @property
    def family(self) -> str:  # type: ignore[override]
        return family_of(self._base)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(self.model.load_device)

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self._base.get_dtype_inference()

    @cached_property
    def prediction_type(self) -> PredictionType:  # type: ignore[override]
        names = _class_names(self._sampling)
        for strange in _STRANGE:
            if strange in names:
                raise NotApplicable(f"models sampled as {strange} are not known here: there is no score for them")
        for name, kind in _SAMPLINGS.items():
            if name in names:
                return kind
        raise NotApplicable(f"models sampled as {type(self._sampling).__name__} are not known here")

    @property
    def reference(self) -> Reference:  # type: ignore[override]
        """The empty prompt; called the empty branch but for models that take guidance as an input (Flux dev), that are
        sampled without (schnell), or in a few steps (LCM)."""
        few = _DISTILLED in _class_names(self._sampling)
        return "empty prompt" if few or is_distilled(self._base) else "empty branch"

    @cached_property
    def note(self) -> str | None:
        """What to say about the guidance of the conditioning, which the network is not told here; None if nothing.

        One that learned u + w (c - u) shows w times the same difference, so that nothing is lost by asking at its
        default, which calibrations are made at: their false-alarm rate holds whatever is told while sampling.
        """
        given = [options["guidance"] for _, options in self._like or () if "guidance" in options]
        own = own_guidance(self._base) if given else None
        others = [scale for scale in given if scale != own]
        if own is None or not others:
            return None
        said = "no guidance" if others[0] is None else f"guidance {others[0]:g}"
        return f"judged at the model's default guidance, {own:g}, as it is calibrated; the conditioning says {said}"

    def require_guidance(self) -> None:
        """Raises NotApplicable for models of other things than images, or that do not start from pure noise, and for
        conditionings that say nothing there."""
        kind = self.prediction_type  # raises for what is unknown
        if kind == "flow" and float(getattr(self._sampling, "noise_scale", 1.0)) != 1.0:
            raise NotApplicable("this model scales its starting noise: there is no score for it")
        form = self._latent_format
        if form.latent_dimensions not in (2, 3) or "Audio" in type(form).__name__:
            raise NotApplicable("this model makes sound or shapes: checks are for images")
        if "Refiner" in type(self._base).__name__ or takes_images(self._base, form):
            raise NotApplicable(
                "refiners and inpainting models do not start from pure noise: a check says nothing there"
            )
        if self._like is not None and not self.read(self._like).tensors["text"].any():
            raise NotApplicable(
                "the conditioning holds no words, as of ConditioningZeroOut: no training image can be reproduced for it"
            )
        if not self._acts_at_first:
            raise NotApplicable("the prompt sets in after the first step, which is where a check looks")

    @cached_property
    def _acts_at_first(self) -> bool:
        """Whether some entry of the conditioning is in its time range at pure noise; none would look like no words."""
        if self._like is None:
            return True
        template = self._templates[int(self.read(self._like).tensors["template"][0])]
        level = self.levels.pure_noise
        first = (level.sigma if self.prediction_type == "flow" else level.sigma / level.alpha).item()
        starts = [options.get("start_percent", 0.0) for options in template.options]
        return any(first <= float(self._sampling.percent_to_sigma(start)) for start in starts)

    @property
    def _latent_format(self) -> Any:
        return self.model.get_model_object("latent_format")

    # --- noise levels ---

    @cached_property
    def levels(self) -> Levels:  # type: ignore[override]
        sampling = self._sampling
        if self.prediction_type == "flow":
            shift = float(getattr(sampling, "shift", 1.0))
            return Levels(None, shift=math.exp(shift) if "ModelSamplingFlux" in _class_names(sampling) else shift)
        sigmas = sampling.sigmas.detach().double().cpu()
        return Levels(1 / (1 + sigmas.square()))

    @property
    def channels(self) -> int:
        return self._latent_format.latent_channels

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns the latent's shape (C, H, W) for an image in pixels. Raises InputError for odd sizes, or none."""
        if height is None or width is None:
            raise InputError("a ComfyUI model has no size of its own: give height and width")
        factor = self._latent_format.spacial_downscale_ratio
        for name, pixels in (("height", height), ("width", width)):
            if pixels <= 0 or pixels % factor:
                raise InputError(f"{name} {pixels} is not a positive multiple of {factor}, as this model needs")
        return self.channels, height // factor, width // factor

    # --- text ---

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        """Returns the condition of one or more prompts, one row each, with ComfyUI's prompt syntax.

        Raises:
            InputError: No CLIP, no prompt, or a text that is none, see `texts_of`.
        """
        return Condition.cat([self.read(self.conditioning(text)) for text in texts_of(prompt)])

    def conditioning(self, prompt: str) -> Conditioning:
        """Returns what CLIP Text Encode makes of a prompt. Raises InputError without a CLIP, or as `encoded` does."""
        if self.clip is None:
            raise InputError("texts can only be read with a CLIP: connect the one that belongs to the model")
        with torch.inference_mode():
            return encoded(self.clip, prompt)

    def read(self, conditioning: Conditioning) -> Condition:
        """Returns a CONDITIONING as rows. Raises InputError if it is none, not finite, or made for another model."""
        condition = self._templates.read(conditioning)
        if not condition.tensors["text"].isfinite().all():
            raise InputError(
                "the conditioning holds NaN or infinity: look for a weight in the prompt that is no number"
            )
        width, expected = condition.tensors["text"].shape[2], text_width(self._base)
        if expected is not None and width != expected:
            raise InputError(
                f"the conditioning is {width} wide and this model reads {expected}: it was made by another model's "
                "CLIP; encode the prompt with the CLIP that belongs to this model"
            )
        return condition

    def write(self, condition: Condition) -> Conditioning:
        """Returns rows of one template as a CONDITIONING."""
        return self._templates.write(condition)

    @cached_property
    def empty(self) -> Condition:  # type: ignore[override]
        empty = self.conditioning("")
        return self.read(empty if self._like is None else self._templates.without_words(self._like, empty))[[0]]

    def truncated(self, prompt: str) -> bool:
        """Returns False: ComfyUI reads long prompts in several parts."""
        return False

    def significance(self, prompt: str, spans: Sequence[Span], score: Score) -> list[float]:
        """Returns how much the score falls without each character range of the prompt, >= 0; higher = more salient."""
        return occlusion_saliency(self.encode, prompt, spans, score)

    # --- the network ---

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        grad = torch.is_grad_enabled() and (x.requires_grad or condition.tensors["text"].requires_grad)
        level = self.levels.timestep(time.cpu()).to(x.device)
        parts, order = [], []
        for rows in self._shareable(time, condition):
            order += rows
            parts.append(self._output(x[rows], level[rows], condition[rows], grad))
        return torch.cat(parts)[torch.tensor(order, device=x.device).argsort()]

    def _shareable(self, time: Tensor, condition: Condition) -> list[list[int]]:
        """Rows that can share a call: of one template and length; time ranges of templates are judged once per call."""
        groups: dict[tuple[float, ...], list[int]] = {}
        levels = bool(self._base.model_config.unet_config.get("meanflow"))  # told where the first row's step ends
        for row, (template, tokens, t) in enumerate(
            zip(
                condition.tensors["template"].tolist(),
                condition.tensors["tokens"].tolist(),
                time.tolist(),
                strict=True,
            )
        ):
            key = (template, tokens) if self._templates[template].plain and not levels else (template, tokens, t)
            groups.setdefault(key, []).append(row)
        return list(groups.values())

    def _output(self, x: Tensor, level: Any, condition: Condition, grad: bool) -> Tensor:
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (level.alpha, level.sigma))
        flow = self.prediction_type == "flow"
        own = x if flow else x / alpha  # ComfyUI keeps x0 + sigma noise
        framed = self._latent_format.latent_dimensions == 3  # an image is a film of one frame
        sigmas = level.sigma if flow else level.sigma / level.alpha
        asked = without_guidance(self.write(condition))
        try:
            x0 = clean_latents(self.model, own.unsqueeze(2) if framed else own, sigmas, asked, grad=grad)
        except RuntimeError as error:
            if is_out_of_memory(error) or ("size" not in str(error) and "shape" not in str(error)):
                raise
            raise InputError(
                f"the model cannot take this conditioning or latent ({str(error).splitlines()[0]}): "
                "use the CLIP and the latent size that belong to it"
            ) from error
        x0 = x0.squeeze(2) if framed else x0
        if flow:
            return (x - x0) / sigma
        if self.prediction_type == "sample":
            return x0
        noise = (x - alpha * x0) / sigma
        return noise if self.prediction_type == "epsilon" else alpha * noise - sigma * x0

    # --- identity ---

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The digest of the network, the text encoder, their LoRAs and patches with strengths, dtype and family."""
        weights, patches = weights_and_patches(self.model, "diffusion_model.")
        if self.clip is not None:
            text_weights, text_patches = weights_and_patches(self.clip.patcher, "")
            weights, patches = weights + text_weights, patches + text_patches
            if self.clip.layer_idx is not None:
                patches.append(f"clip layer {self.clip.layer_idx}")
        patches += self._patches[0] + schedule_settings(self.levels.alphas_cumprod) + reference_settings(self)
        return fingerprint(weights, self.family, self.dtype, self.prediction_type, patches)

    @property
    def unreadable(self) -> list[str]:
        """The names of patches that cannot be compared: with them the fingerprint is never the same twice."""
        return self._patches[1]

    @cached_property
    def _patches(self) -> tuple[list[str], list[str]]:
        found, unreadable = patches_of(self.model, [options.get("hooks") for _, options in self._like or ()])
        if self.clip is None:
            return found, unreadable
        options = getattr(self.clip, "tokenizer_options", None)
        more, others = patches_of(self.clip.patcher)
        found += [f"clip {text}" for text in [*more, *([f"tokenizer {sorted(options.items())}"] if options else [])]]
        return found, unreadable + others


def _class_names(value: Any) -> set[str]:
    return {base.__name__ for base in type(value).__mro__}
