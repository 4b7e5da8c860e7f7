"""Prompts from a file, or from the captions in a training folder, by the one reader of prompts."""

from collections import Counter
from pathlib import Path

from ..errors import InputError
from ..prompts.captions import caption_of
from ..prompts.reader import PromptFile
from ..prompts.rows import Row
from .prompts import MOST, Candidate

SUFFIX = ".txt"
MOST_FILES = 100_000


def prompts_in(place: str | Path, most: int = MOST) -> tuple[list[Candidate], list[str]]:
    """Returns the prompts of a file or folder, each once, and what is to be said of the reading.

    Of a folder the captions (IMAGE.txt beside the images, in folders within it, too), the most frequent first: what
    was seen most is memorized most.

    Args:
        place: A file of prompts, as `check --file` takes it, or a training folder.
        most: At most that many prompts.

    Raises:
        InputError: There is no such place, or no prompt in it.
    """
    path = Path(place).expanduser()
    if not path.is_dir():
        file = PromptFile(str(path))
        counts = Counter(row.value for row in file if isinstance(row, Row))
        notes, what = list(file.notes()), "row"
    else:
        counts, notes, what = *_captions(path), "caption"
    if not counts:
        raise InputError(f"{place} holds no prompts: give a file with one on each line, or a folder with captions")
    found = [
        Candidate(text, f"{what} of {path.name}" + (f", {count} times" if count > 1 else ""))
        for text, count in counts.most_common(most)
    ]
    if len(counts) > most:
        notes.append(f"{len(counts) - most} of {len(counts)} prompts are left out, the rarer ones: raise --most")
    return found, notes


def _captions(folder: Path) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    unread = 0
    files = sorted(file for file in folder.rglob("*" + SUFFIX) if file.is_file())
    if len(files) > MOST_FILES:
        raise InputError(f"{folder} has {len(files):,} captions, more than {MOST_FILES:,}: give one part of it")
    for file in files:
        try:
            counts[" ".join(caption_of(file).split())] += 1
        except InputError:
            unread += 1
    return counts, [f"{unread} of {len(files)} captions cannot be read, or are empty"] if unread else []
