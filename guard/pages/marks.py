"""Which words of a prompt differ from those of another, for showing both with the difference marked."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from ..mitigation.words import Words


@dataclass(frozen=True)
class Piece:
    """A part of a prompt, and whether it stands in one prompt only."""

    text: str
    changed: bool


def marked(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Returns both prompts, cut into pieces that join up to them again; words that only one of them has are changed."""
    old, new = Words.of(before), Words.of(after)
    blocks = SequenceMatcher(None, old.words, new.words, autojunk=False).get_matching_blocks()
    kept_old = {block.a + i for block in blocks for i in range(block.size)}
    kept_new = {block.b + i for block in blocks for i in range(block.size)}
    return list(_pieces(old, kept_old)), list(_pieces(new, kept_new))


def _pieces(words: Words, kept: set[int]) -> Iterator[Piece]:
    plain = words.gaps[0]
    for i, (word, gap) in enumerate(zip(words.words, words.gaps[1:], strict=True)):
        if i in kept:
            plain += word + gap
            continue
        if plain:
            yield Piece(plain, False)
        yield Piece(word, True)
        plain = gap
    if plain:
        yield Piece(plain, False)
