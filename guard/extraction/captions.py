"""Whose pictures, and which words might call them: what a model is asked for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..images import images_among, no_images
from ..printable import printable
from ..prompt_text import fault
from ..prompts.reader import PromptFile
from ..prompts.recorded import recorded_prompt
from ..prompts.rows import Row

PROMPTS = ("prompt", "caption", "text")  # columns of a list of captions; the first that there is counts
FILES = ("file_name", "file", "image", "filename")
NAMED = 3  # of a kind, in one line


@dataclass(frozen=True)
class Asked:
    """Words that a model is asked for, once.

    Attributes:
        prompt: The words.
        pictures: Places of the pictures that they are said to belong to; empty for words that belong to none alone.
        source: Where they come from: "with the picture", "list", "title" or "given".
    """

    prompt: str
    pictures: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class Captions:
    """Pictures and the words that are tried for them.

    Attributes:
        folder: Where the pictures lie.
        pictures: The files, in order of their names.
        asked: The words, each once.
        notes: What is to be said of them, a line each.
    """

    folder: Path
    pictures: tuple[Path, ...]
    asked: tuple[Asked, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def uncaptioned(self) -> list[int]:
        """The places of the pictures that no words belong to."""
        known = {place for asked in self.asked for place in asked.pictures}
        return [place for place in range(len(self.pictures)) if place not in known]

    def name(self, place: int) -> str:
        """Returns what a picture is called, in its folder."""
        return self.pictures[place].relative_to(self.folder).as_posix()


def read_captions(
    folder: str | Path, captions: str | Path | None = None, prompts: Iterable[str] = (), *, titles: bool = False
) -> Captions:
    """Gathers the pictures of a folder and of those below it, and all words that are known for them.

    Args:
        folder: The folder. The prompt that a file itself tells, or a text file beside it, counts.
        captions: A table or JSON lines with a column of file names ("file_name", "file" or "image") and one of words
            ("prompt", "caption" or "text").
        prompts: Words that belong to no one picture, e.g. the artist's name.
        titles: Whether a picture's file name is tried, too: "a_quiet-harbour.png" as "a quiet harbour".

    Raises:
        InputError: There is no such folder, no picture, a list cannot be read or names no picture, or words are no
            prompt.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {printable(root)} of pictures: check the name")
    pictures = images_among(root.rglob("*"))
    if not pictures:
        raise no_images(root)
    found: dict[str, tuple[list[int], str]] = {}
    notes: list[str] = []
    for place, picture in enumerate(pictures):
        _add(found, recorded_prompt(picture), place, "with the picture")
    if captions is not None:
        _listed(found, root, pictures, str(captions), notes)
    if titles:
        for place, picture in enumerate(pictures):
            _add(found, " ".join(picture.stem.replace("_", " ").replace("-", " ").split()), place, "title")
    for text in prompts:
        reason = fault(text)
        if reason is not None:
            raise InputError(f"the words {printable(text, 60)!r} {reason}: give others")
        _add(found, text, None, "given")
    asked = tuple(Asked(text, tuple(dict.fromkeys(places)), source) for text, (places, source) in found.items())
    return Captions(root, tuple(pictures), asked, tuple(notes))


def _add(found: dict[str, tuple[list[int], str]], text: str | None, place: int | None, source: str) -> None:
    if text is None or fault(text) is not None:
        return
    places, _ = found.setdefault(text, ([], source))
    places += [] if place is None else [place]


def _listed(
    found: dict[str, tuple[list[int], str]], root: Path, pictures: Sequence[Path], captions: str, notes: list[str]
) -> None:
    source = PromptFile(captions, column=PROMPTS)
    rows = {row.row: row.value for row in source if isinstance(row, Row)}
    notes += source.notes()
    names = next((cells for column in FILES if (cells := source.beside(column)) is not None), None)
    if names is None:
        raise InputError(
            f"{source.name} has no column with the names of pictures ({', '.join(FILES)}): add one, or give words that "
            "belong to no one picture as --prompts"
        )
    places = {picture.relative_to(root).as_posix(): place for place, picture in enumerate(pictures)}
    bare = Counter(picture.name for picture in pictures)
    for place, picture in enumerate(pictures):
        if bare[picture.name] == 1:  # it is clear which is meant
            places.setdefault(picture.name, place)
    unknown = [names[row] or "" for row in rows if _posix(names[row]) not in places]
    for row, text in rows.items():
        if _posix(names[row]) in places:
            _add(found, text, places[_posix(names[row])], "list")
    if len(unknown) == len(rows):
        raise InputError(
            f"{source.name} names no picture of {printable(root)}, but {printable(unknown[0], 60)!r}: use names "
            "of the files in the folder"
        )
    if unknown:
        some = ", ".join(printable(name, 60) or "nothing" for name in unknown[:NAMED])
        notes.append(f"{source.name}: {len(unknown)} of {len(rows)} captions are of no picture in the folder ({some})")


def _posix(name: str | None) -> str:
    return (name or "").replace("\\", "/").removeprefix("./")
