"""Tokenizers of pipelines that put a prompt into a template, such as a chat's, before a language model reads it.

Both tell where a prompt's own tokens lie: `Templated` where the template is a text around it, `TemplateTokenizer` where
its tokens are counted, and padding may stand before them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """What a tokenizer makes of a text."""

    input_ids: list[int]


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


@dataclass(frozen=True)
class TemplateTokenizer:
    """A tokenizer that gives a prompt's tokens behind those of its template, as the text encoder reads them.

    Attributes:
        tokenizer: The pipeline's tokenizer, or a processor that holds one.
        before, after: What stands around every prompt.
        length: What the pipeline fills up with padding to, in tokens; it counts where padding stands on the left.
    """

    tokenizer: Any
    before: str
    after: str = ""
    length: int = 0

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Tokens:
        """Returns the prompt's tokens; with the special ones, those that stand before it, too."""
        tokenizer = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        # a chat's template writes the special tokens out
        bare = tokenizer(text, add_special_tokens=False).input_ids
        if not add_special_tokens:
            return Tokens(bare)
        found = [*tokenizer(self.before, add_special_tokens=False).input_ids, *bare]
        if getattr(tokenizer, "padding_side", "right") == "left":
            behind = len(tokenizer(self.after, add_special_tokens=False).input_ids)
            found = [tokenizer.pad_token_id] * (self.length - len(found) - behind) + found
        return Tokens(found)


def around_prompt(template: str, place: str = "{}") -> tuple[str, str]:
    """Returns what a template, with `place` where the prompt belongs, has before and after the prompt."""
    before, _, after = template.rpartition(place)
    return before, after
