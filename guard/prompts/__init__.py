"""Lists of prompts and words that ship with the package."""

from collections.abc import Iterable
from pathlib import Path

BENIGN = Path(__file__).parent / "benign.txt"
WORDS = Path(__file__).parent / "words.txt"


def benign(lines: Iterable[str] = ()) -> list[str]:
    """Each line once (prompts counted twice make a promise look firmer than it is), without empty ones and # comments;
    the shipped list if there is none."""
    texts = list(dict.fromkeys(text for line in lines if (text := line.strip()) and not text.startswith("#")))
    return texts or benign(BENIGN.read_text("utf-8").splitlines())
