"""Reading prompts, and lists of prompts and words that ship with the package."""

from collections.abc import Iterable
from pathlib import Path

from .plain import is_prompt

BENIGN = Path(__file__).parent / "benign.txt"
WORDS = Path(__file__).parent / "words.txt"


def benign(lines: Iterable[str] = ()) -> list[str]:
    """Each line once (prompts counted twice make a promise look firmer than it is), without blank ones and comments;
    the shipped list if there is none."""
    texts = list(dict.fromkeys(line.strip() for line in lines if is_prompt(line)))
    return texts or benign(BENIGN.read_text("utf-8").splitlines())
