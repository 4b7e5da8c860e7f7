"""Texts as ComfyUI's text encoders read them, whatever people write."""

import re
from typing import Any

from ..errors import InputError

_NAMELESS = re.compile(r"embedding:(?=\s*(?:$|[()]|\sembedding:))")


def encoded(clip: Any, text: str) -> list[Any]:
    """Returns the CONDITIONING of a text with ComfyUI's prompt syntax; an `embedding:` that names nothing is a word.

    Raises InputError for brackets that are nested too deep.
    """
    try:
        return clip.encode_from_tokens_scheduled(_tokens(clip, text))
    except RecursionError as error:
        raise InputError("brackets in the prompt are nested too deep: use fewer of them") from error


def _tokens(clip: Any, text: str) -> Any:
    try:
        return clip.tokenize(text)
    except IndexError:  # ComfyUI looks for a name behind the mark
        return clip.tokenize(_NAMELESS.sub("embedding", text))
