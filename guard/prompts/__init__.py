"""Reading prompts, and lists of prompts and words that ship with the package."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .plain import is_prompt
from .reader import PromptFile, PromptLines, PromptRows
from .rows import Reject

BENIGN = Path(__file__).parent / "benign.txt"
WORDS = Path(__file__).parent / "words.txt"


def benign(lines: Iterable[str] = ()) -> list[str]:
    """Returns the benign prompts of a calibration, each once, since prompts counted twice make a promise look firmer.

    Args:
        lines: One prompt on each, without blank ones and comments; the shipped list if there is no prompt.

    Raises:
        InputError: A line is no prompt.
    """
    typed = [line for line in lines if is_prompt(line)]
    rows: PromptRows = PromptLines(typed) if typed else PromptFile(BENIGN)
    texts = dict[str, None]()
    for row in rows:
        if isinstance(row, Reject):
            raise InputError(f"{row.where} of {rows.name} {row.reason}: correct it, or leave it out")
        texts[row.value] = None
    return list(texts)
