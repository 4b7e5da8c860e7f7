"""What a pipeline's answers depend on besides its networks, where it is not as these are used to."""

from typing import Any, Protocol

from ..denoiser import Denoiser
from ..errors import InputError
from ..identity import describe, origin, schedule_settings, token_settings
from ..protocols import PipelineDenoiser


class Tokenizing(PipelineDenoiser, Protocol):
    """A pipeline's denoiser that knows its tokenizers."""

    def _tokenizers(self) -> list[tuple[Any, int]]: ...


def text_settings(denoiser: Tokenizing) -> list[str]:
    """Returns how a PipelineDenoiser's prompts become tokens and conditions; empty for the usual ways."""
    found = []
    encode = denoiser.pipe.encode_prompt
    if origin(encode).split(".")[0] not in ("diffusers", "torch"):  # torch.no_grad as a decorator
        found.append(f"prompts by {describe(encode)}")
    with denoiser.text_lock:
        for encoder, (tokenizer, _) in zip(denoiser.text_encoders, denoiser._tokenizers(), strict=False):
            rows = encoder.get_input_embeddings().weight.shape[0] if hasattr(encoder, "get_input_embeddings") else 0
            found += token_settings(lambda text, tokens=tokenizer: tokens(text).input_ids, rows)
    return found


def level_settings(denoiser: Denoiser) -> list[str]:
    """Returns the noise schedule of a PipelineDenoiser, and where it is entered; empty for nearly all models."""
    try:
        levels = denoiser.levels
        first = [] if levels.first is None else [f"starts at {levels.first}"]
        return [*schedule_settings(levels.alphas_cumprod), *first]
    except InputError:
        return []  # a scheduler of other models: nothing can be asked with it
