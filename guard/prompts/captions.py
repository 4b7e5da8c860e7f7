"""The prompt of an image, in a text file beside it."""

from pathlib import Path

from ..errors import InputError
from ..images import caption_path
from .rows import LONGEST, fault, trimmed
from .text import decoded, opened, whole


def caption_of(image: Path) -> str:
    """Returns what is in the text file beside an image, read by the same rules as a list of prompts.

    Raises InputError if there is none, or if it holds no prompt.
    """
    beside = caption_path(image)
    try:
        with opened(str(beside)) as stream:
            text = trimmed(whole(decoded(stream, str(beside)), str(beside), 2 * LONGEST))
        reason = fault(text)
        if reason is not None:
            raise InputError(f"{beside} {reason}")
    except InputError as error:
        raise InputError(f"the prompt of {image} is not known ({error}): put it in {beside.name} beside it") from error
    return text
