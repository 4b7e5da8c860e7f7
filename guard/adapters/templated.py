"""Tokenizers of pipelines that put words of their own around a prompt: a chat's turns, or an instruction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Templated:
    """A tokenizer that reads a prompt as its pipeline has it read; without special tokens, the prompt alone.

    Attributes:
        tokenizer: The tokenizer itself.
        template: template(prompt) -> the text that the pipeline makes of it.
    """

    tokenizer: Any
    template: Callable[[str], str]

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        """Returns what the tokenizer does, with `input_ids`."""
        return self.tokenizer(
            self.template(text) if add_special_tokens else text, add_special_tokens=add_special_tokens
        )
