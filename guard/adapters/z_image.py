"""Z-Image and Z-Image Turbo: a transformer on flow times and lists of latents, conditioned on Qwen3 tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from .flow import FlowDenoiser
from .templates import Templated


class ZImageDenoiser(FlowDenoiser):
    """ZImagePipeline; the network is fed 1 - s, and answers x0 - noise. Conditions: text (P, L, D), tokens (P,).

    Nothing in a pipeline tells Turbo from the model that it was distilled from. Their scores are the same difference to
    the empty prompt; only its name in the report is the other's unless it is given.
    """

    family = "z-image"
    networks = ("ZImageTransformer2DModel",)
    guidance_scale = 5.0
    tokens = 512

    @property
    def _factor(self) -> int:
        return self.pipe.vae_scale_factor * 2

    @property
    def _sample_size(self) -> tuple[int, int]:
        side = 1024 // self.pipe.vae_scale_factor
        return side, side

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        text = Condition(**{**condition.tensors, "text": condition.tensors["text"].to(x.device, x.dtype)})
        out = self.network(list(x.unsqueeze(2).unbind()), 1 - time, _as_lists(text), return_dict=False)[0]
        return -torch.stack(list(out)).squeeze(2)

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        x, raw = (torch.stack(list(rows)).squeeze(2) for rows in (arguments["x"], output[0]))
        condition, time, rows = self._padded(arguments["cap_feats"]), arguments["t"], len(x)
        if not self._twice(time):
            return x, 1 - time, condition, -raw
        # the prompts' branch comes first here, and last everywhere else
        order = [*range(rows // 2, rows), *range(rows // 2)]
        return x[order], 1 - time[order], condition[order], -raw[order]

    def _twice(self, time: Tensor) -> bool:
        """Whether the pipeline asks for two branches at that time of the network's."""
        last = self.pipe._cfg_truncation
        left_out = last is not None and float(last) < 1 and float(time[0]) > last
        return self.pipe.do_classifier_free_guidance and not left_out

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        found = {"prompt_embeds": _as_lists(positive)}
        return found if negative is None else found | {"negative_prompt_embeds": _as_lists(negative)}

    def _encode(self, prompts: list[str]) -> Condition:
        # the pipeline writes its template into the list that it is given
        texts, _ = self.pipe.encode_prompt(
            list(prompts),
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.tokens,
        )
        return self._padded(texts)

    def _padded(self, texts: Sequence[Tensor]) -> Condition:
        """Texts (L, D) of different lengths as one condition; always as long, so that any two can share a call."""
        length = max(self.tokens, *(len(text) for text in texts))
        text = torch.stack([torch.nn.functional.pad(text, (0, 0, 0, length - len(text))) for text in texts])
        return Condition(text=text, tokens=torch.tensor([len(text) for text in texts], device=text.device))

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(Templated(self.pipe.tokenizer, self._turns), self.tokens)]

    def _turns(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return self.pipe.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )


def _as_lists(condition: Condition) -> list[Tensor]:
    """Each prompt's text, (L, D), without what it is padded with."""
    counts = condition.tensors["tokens"].tolist()
    return [text[:count] for text, count in zip(condition.tensors["text"], counts, strict=True)]
