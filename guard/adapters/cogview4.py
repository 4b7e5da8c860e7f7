"""CogView4: a transformer on flow times of its own, conditioned on GLM tokens and on sizes."""

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..errors import NotApplicable
from .flow import TIMESTEPS, FlowDenoiser


class CogView4Denoiser(FlowDenoiser):
    """CogView4Pipeline. Conditions: text (P, L, D), tokens (P,), sizes (P, 6) or none: original, made, and crop.

    The network is fed a time t before the scheduler's shift for the image's size: s = shift t / (1 + (shift - 1) t). It
    is told no mask, so that rows with texts of other lengths are asked in calls of their own.
    """

    family = "cogview-4"
    networks = ("CogView4Transformer2DModel",)
    guidance_scale = 5.0
    tokens = 1024

    def _mu(self, patches: int) -> float:
        config = self.pipe.scheduler.config
        grown = (patches / config.get("base_image_seq_len", 256)) ** 0.5
        return grown * config.get("max_shift", 0.75) + config.get("base_shift", 0.25)

    def _shift_of(self, x: Tensor) -> float:
        patch = int(self.network.config.patch_size)
        return self._shift(x.shape[-2] * x.shape[-1] // patch**2)

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        shift, counts = self._shift_of(x), condition.tensors["tokens"].tolist()
        time = time / (shift - (shift - 1) * time) * TIMESTEPS
        sizes = condition.tensors.get("sizes", self._sizes(x)).to(x.device, x.dtype)
        found: dict[int, Tensor] = {}
        for count in sorted(set(counts)):
            rows = [row for row, own in enumerate(counts) if own == count]
            answers = self.network(
                hidden_states=x[rows],
                encoder_hidden_states=condition.tensors["text"][rows, :count].to(x.device, x.dtype),
                timestep=time[rows],
                original_size=sizes[rows, 0:2],
                target_size=sizes[rows, 2:4],
                crop_coords=sizes[rows, 4:6],
                return_dict=False,
            )[0]
            found |= dict(zip(rows, answers, strict=True))
        return torch.stack([found[row] for row in range(len(x))])

    def read_call(self, arguments: dict[str, Any], output: Any) -> tuple[Tensor, Tensor, Condition, Tensor]:
        x, time = arguments["hidden_states"], arguments["timestep"] / TIMESTEPS
        shift = self._shift_of(x)
        sizes = torch.cat([arguments[name] for name in ("original_size", "target_size", "crop_coords")], dim=1)
        condition = _counted(arguments["encoder_hidden_states"], sizes=sizes)
        return x, shift * time / (1 + (shift - 1) * time), condition, output[0]

    def _sizes(self, x: Tensor) -> Tensor:
        """An original of the size that is made, not cropped; as the pipeline says by default."""
        height, width = (side * self.pipe.vae_scale_factor for side in x.shape[-2:])
        return torch.tensor([[height, width, height, width, 0, 0]], device=x.device).expand(len(x), -1)

    def as_arguments(self, positive: Condition, negative: Condition | None = None) -> dict[str, Any]:
        found = {"prompt_embeds": _text(positive)}
        return found if negative is None else found | {"negative_prompt_embeds": _text(negative)}

    def _encode(self, prompts: list[str]) -> Condition:
        # one by one: the text encoder is told no mask, and would read what other prompts are padded with
        return Condition.cat([self._encode_one(prompt) for prompt in prompts])

    def _encode_one(self, prompt: str) -> Condition:
        text, _ = self.pipe.encode_prompt(
            [prompt], do_classifier_free_guidance=False, device=self.device, max_sequence_length=self.tokens
        )
        return _counted(text)

    def _tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.tokens)]


def _counted(text: Tensor, **more: Tensor) -> Condition:
    """Texts of one length, all of which counts."""
    return Condition(text=text, tokens=torch.full((len(text),), text.shape[1], device=text.device), **more)


def _text(condition: Condition) -> Tensor:
    """The texts (P, L, D) as a call of the pipeline takes them. Raises NotApplicable where L is not one for all."""
    counts = condition.tensors["tokens"].tolist()
    if len(set(counts)) > 1:
        raise NotApplicable(
            "this pipeline takes embeddings of one length only, and these prompts differ: make one image at a time"
        )
    return condition.tensors["text"][:, : counts[0]]
