"""HunyuanImage: a transformer on flow times, conditioned on a language model's tokens, and on bytes of quoted text."""

from typing import Any, ClassVar

from torch import Tensor

from ..branches import at_scale
from ..condition import UNTIL
from ..denoiser import Condition
from .flow import TIMESTEPS, FlowDenoiser
from .templates import TemplateTokenizer, around_prompt

_THOUSAND = 1000.0  # guidance scales are fed as thousandths


class HunyuanImageDenoiser(FlowDenoiser):
    """HunyuanImagePipeline; the network is fed 1000 s.

    Conditions: text (P, L, D) and mask (P, L), glyphs (P, L', D') and glyph_mask (P, L') of what the prompt has in
    quotes, zeros without. Distilled networks are told their guidance scale, and where their step ends: `until` (P,), a
    flow time, by default that of the noise itself, where the answer is the velocity.
    """

    family = "hunyuan-image"
    networks = ("HunyuanImageTransformer2DModel",)
    also_told = ("encoder_hidden_states_2", "encoder_attention_mask_2", "timestep_r")
    argument_names: ClassVar = {
        "text": "prompt_embeds",
        "mask": "prompt_embeds_mask",
        "glyphs": "prompt_embeds_2",
        "glyph_mask": "prompt_embeds_mask_2",
    }
    guidance_scale = 3.25

    @property
    def takes_scale(self) -> bool:
        return self._guidance_embeds(getattr(self.network, "time_guidance_embed", None))

    @property
    def _factor(self) -> int:
        return self.pipe.vae_scale_factor * max(self.network.config.patch_size)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        time = time.to(x.device)
        until = condition.tensors.get(UNTIL, time).to(x.device)
        return self.network(
            hidden_states=x,
            timestep=(time * TIMESTEPS).to(x.dtype),
            timestep_r=(until * TIMESTEPS).to(x.dtype) if self.network.config.use_meanflow else None,
            guidance=(self._told(x, condition) * _THOUSAND).to(x.dtype) if self.takes_scale else None,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            encoder_attention_mask=condition.tensors["mask"].to(x.device),
            encoder_hidden_states_2=condition.tensors["glyphs"].to(x.device, x.dtype),
            encoder_attention_mask_2=condition.tensors["glyph_mask"].to(x.device),
            return_dict=False,
        )[0]

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        condition = Condition(
            text=arguments["encoder_hidden_states"],
            mask=arguments["encoder_attention_mask"],
            glyphs=arguments["encoder_hidden_states_2"],
            glyph_mask=arguments["encoder_attention_mask_2"],
        )
        if self.takes_scale:
            condition = at_scale(condition, float(arguments["guidance"][0]) / _THOUSAND)
        if arguments.get("timestep_r") is not None:
            until = {UNTIL: arguments["timestep_r"] / TIMESTEPS}
            condition = Condition(**condition.tensors, **until)
        return arguments["hidden_states"], arguments["timestep"] / TIMESTEPS, condition, output[0]

    def _encode(self, prompts: list[str]) -> Condition:
        text, mask, glyphs, glyph_mask = self.pipe.encode_prompt(prompts, device=self.device, batch_size=len(prompts))
        text, glyphs = (tensor.to(self.dtype) for tensor in (text, glyphs))
        return Condition(text=text, mask=mask, glyphs=glyphs, glyph_mask=glyph_mask)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        # bytes are read of quoted text alone
        around = around_prompt(self.pipe.prompt_template_encode)
        limit = self.pipe.prompt_template_encode_start_idx + self.pipe.tokenizer_max_length
        return [(TemplateTokenizer(self.pipe.tokenizer, *around), limit)]
