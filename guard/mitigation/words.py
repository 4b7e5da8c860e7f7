"""A prompt as words that can be dropped, swapped, inserted or moved, and what stands between them."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import InputError
from ..prompts import WORDS

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"  # scripts written without spaces
_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf][\ufe0f\U0001f3fb-\U0001f3ff]?"
# what hosts read in another way: the name of an embedding, which is one word with its mark, and the weight of brackets,
# which is none: (old embedding:clock:1.2)
_EMBEDDING = r"(?<![^\s()\[\]{}|,])embedding:\s*[^\s()\[\]{}<>|,]+?(?=:[\d.e+-]+\s*\)|[\s()\[\]{}<>|,]|$)"
_NUMBER = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
_WEIGHT = rf"(?<=:)\s*{_NUMBER}(?=\s*\))"
_PLAIN = rf"[{_SPACELESS}]|[^\W{_SPACELESS}](?:[^\W{_SPACELESS}]|['’-](?=\w))*|{_EMOJI}(?:\u200d{_EMOJI})*"
_WORD = re.compile(rf"{_WEIGHT}|(?P<word>{_EMBEDDING}|{_PLAIN})")
_BRACKETS = frozenset("()[]{}<>|\\")
_EMPTIED = re.compile(rf"(?<!\\)(?:\(\s*(?::\s*{_NUMBER}\s*)?\)|\[\s*\]|\{{\s*\}}|<\s*>)")


@dataclass(frozen=True)
class Words:
    """A prompt cut into words (n) and the gaps around them (n + 1)."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @staticmethod
    def of(prompt: str) -> "Words":
        """Cuts a prompt into words and gaps.

        Emoji and characters of scripts without spaces are words of their own; punctuation belongs to the gaps.
        """
        matches = [m for m in _WORD.finditer(prompt) if m["word"]]
        ends = [0, *(m.end() for m in matches)]
        starts = [*(m.start() for m in matches), len(prompt)]
        return Words(tuple(m.group() for m in matches), tuple(prompt[a:b] for a, b in zip(ends, starts, strict=True)))

    def __len__(self) -> int:
        return len(self.words)

    def __str__(self) -> str:
        text = self.gaps[0] + "".join(word + gap for word, gap in zip(self.words, self.gaps[1:], strict=True))
        return " ".join(text.split())

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The character range of each word in the prompt that `of` was given."""
        ranges, position = [], 0
        for gap, word in zip(self.gaps, self.words, strict=False):
            position += len(gap)
            ranges.append((position, position + len(word)))
            position += len(word)
        return ranges

    def drop(self, i: int) -> "Words":
        """Returns the prompt without word i and the gap after it; brackets stay as long as they hold something."""
        before, after = self.gaps[i : i + 2]
        if _BRACKETS & set(before + after):
            gap = _without_emptied(before + after)
        else:
            gap = before if i + 1 < len(self) else after
        return Words((*self.words[:i], *self.words[i + 1 :]), (*self.gaps[:i], gap, *self.gaps[i + 2 :]))

    def swap(self, i: int, word: str) -> "Words":
        """Returns the prompt with another word in place of word i."""
        return Words((*self.words[:i], word, *self.words[i + 1 :]), self.gaps)

    def insert(self, i: int, word: str) -> "Words":
        """Returns the prompt with one more word before word i."""
        return Words((*self.words[:i], word, *self.words[i:]), (*self.gaps[: i + 1], " ", *self.gaps[i + 1 :]))

    def move(self, i: int, to: int) -> "Words":
        """Returns the prompt with words i and `to` exchanged."""
        words = list(self.words)
        words[i], words[to] = words[to], words[i]
        return Words(tuple(words), self.gaps)


def _without_emptied(gap: str) -> str:
    """The gap without brackets around nothing, and those around them."""
    while (shorter := _EMPTIED.sub("", gap)) != gap:
        gap = shorter
    return gap


@cache
def word_list(path: Path | None = None) -> tuple[str, ...]:
    """Returns the words to swap in and to insert: one per line, # for comments; by default the list in the package.

    Raises:
        InputError: The file cannot be read, or has no word.
    """
    try:
        text = (WORDS if path is None else path).read_text("utf-8")
    except OSError as error:
        raise InputError(f"the word list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the word list {path} is not UTF-8 text: save it as UTF-8") from error
    words = tuple(dict.fromkeys(word for line in text.splitlines() if (word := line.split("#")[0].strip())))
    if not words:
        raise InputError(f"the word list {path} has no word: give one per line")
    return words
