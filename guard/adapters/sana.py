"""Sana and Sana Sprint: a transformer on flow times, conditioned on Gemma 2 tokens behind an instruction."""

import math
from typing import Any

from torch import Tensor

from ..branches import at_scale
from ..denoiser import Condition, Levels
from ..errors import InputError
from .flow import TIMESTEPS, FlowDenoiser
from .pipeline_call import original_call, parameters
from .templates import Templated


class SanaDenoiser(FlowDenoiser):
    """SanaPipeline; the network is fed 1000 s, or a multiple of it. Conditions: text (P, L, D), mask (P, L).

    The pipeline's own empty prompt, which it guides away from, has no instruction, unlike a prompt that is empty.
    """

    family = "sana"
    networks = ("SanaTransformer2DModel",)
    guidance_scale = 4.5
    tokens = 300

    @property
    def takes_scale(self) -> bool:
        says, embedding = bool(self.network.config.guidance_embeds), getattr(self.network, "time_embed", None)
        if embedding is not None and hasattr(embedding, "guidance_embedder") != says:
            raise InputError(
                "the network's configuration (guidance_embeds) and its weights contradict each other on whether it is "
                "told its guidance scale: load it with the configuration that belongs to it"
            )
        return says

    @property
    def _factor(self) -> int:
        return math.lcm(32, super()._factor)

    def _make_levels(self) -> Levels:
        shift = super()._make_levels().shift
        # DPM-Solver's flow times begin below 1
        first = 1 - 1 / TIMESTEPS if self.pipe.scheduler.config.get("use_flow_sigmas") else None
        return Levels(None, shift=shift, first=first)

    @property
    def _time_scale(self) -> float:
        """What the network is fed for each unit of flow time."""
        return TIMESTEPS * float(self.network.config.timestep_scale)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        scale = self.network.config.guidance_embeds_scale
        out = self.network(
            x,
            encoder_hidden_states=condition.tensors["text"].to(x.device, x.dtype),
            encoder_attention_mask=condition.tensors["mask"].to(x.device),
            guidance=(self._told(x, condition) * scale).to(x.dtype) if self.takes_scale else None,
            timestep=time * self._time_scale,
            return_dict=False,
        )[0]
        return out[:, : x.shape[1]]  # the second half, if any, is a learned variance

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        x, time = arguments["hidden_states"], arguments["timestep"] / self._time_scale
        condition = Condition(text=arguments["encoder_hidden_states"], mask=arguments["encoder_attention_mask"])
        if arguments.get("guidance") is not None:
            told = float(arguments["guidance"][0]) / self.network.config.guidance_embeds_scale
            condition = at_scale(condition, told)
        # a quarter turn, rounded up, is a little more than pure noise
        return x, time.clamp(0, 1), condition, output[0][:, : x.shape[1]]

    def _encode(self, prompts: list[str]) -> Condition:
        text, mask, *_ = self.pipe.encode_prompt(
            prompts,
            **self._one_branch,
            device=self.device,
            max_sequence_length=self.tokens,
            complex_human_instruction=self._instruction,
        )
        return Condition(text=text, mask=mask)

    @property
    def _one_branch(self) -> dict[str, bool]:
        """What has prompts encoded without their negative ones."""
        return {"do_classifier_free_guidance": False}

    def _encode_empty(self) -> Condition:
        _, _, text, mask = self.pipe.encode_prompt([""], device=self.device, max_sequence_length=self.tokens)
        return Condition(text=text, mask=mask)

    @property
    def _instruction(self) -> list[str]:
        """What stands before every prompt, by default."""
        return parameters(original_call(self.pipe))["complex_human_instruction"].default

    def _tokenizers(self) -> list[tuple[Any, int]]:
        tokenizer = self.pipe.tokenizer
        if tokenizer is None:
            return [(None, self.tokens)]
        before = len(tokenizer.encode("\n".join(self._instruction)))
        return [(Templated(tokenizer, self._instructed), before + self.tokens - 2)]

    def _instructed(self, prompt: str) -> str:
        return "\n".join(self._instruction) + prompt.lower().strip()


class SanaSprintDenoiser(SanaDenoiser):
    """SanaSprintPipeline: a Sana that is told its guidance, and sampled in 1 to 4 steps.

    The pipeline mixes x = cos(t) x0 + sin(t) noise (TrigFlow; Lu & Song 2024, arXiv 2410.11081), but its network is fed
    x / (cos(t) + sin(t)) and s = sin(t) / (cos(t) + sin(t)), and what it answers is turned from noise - x0 into
    cos(t) noise - sin(t) x0. So the network itself is one of flow matching, x = (1 - s) x0 + s noise, and is fed s.
    """

    family = "sana-sprint"

    @property
    def distilled(self) -> bool:
        return True

    @property
    def _one_branch(self) -> dict[str, bool]:
        return {}

    @property
    def _time_scale(self) -> float:
        return 1.0

    def _encode_empty(self) -> Condition:
        return self.encode("")  # there is no branch without an instruction
