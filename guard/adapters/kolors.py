"""Kolors: the UNet of Stable Diffusion XL, conditioned on ChatGLM's tokens."""

from typing import Any

from ..denoiser import Condition
from .perturbed import PerturbedDenoiser
from .stable_diffusion import StableDiffusionXLDenoiser


class KolorsDenoiser(StableDiffusionXLDenoiser):
    """KolorsPipeline. Conditions: text (P, L, D), padded before the words; pooled (P, D); sizes (P, 6) or none."""

    family = "kolors"
    glm_tokens = 256

    def _encode(self, prompts: list[str]) -> Condition:
        text, _, pooled, _ = self.pipe.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False, max_sequence_length=self.glm_tokens
        )
        return Condition(text=text, pooled=pooled)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.glm_tokens)]

    def _text_places(self) -> list[tuple[Any, int, int]]:
        return []  # a padded prompt's words stand at its end


class KolorsPAGDenoiser(PerturbedDenoiser, KolorsDenoiser):
    """KolorsPAGPipeline."""
