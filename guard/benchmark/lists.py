"""Lists of prompts with a known answer: memorized ones by kind, and lists of others, each prompt once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..calibration_run import prompts_digest
from ..errors import InputError
from ..printable import printable
from ..prompts.reader import PromptFile
from ..prompts.recorded import alike
from ..prompts.rows import Row

COLUMNS = ("prompt", "caption", "text")  # the first that there is holds the prompts
KINDS = "type"
MOST_KINDS = 8
FEW = 20
MEMORIZED = "memorized"  # the kind where a list tells none
KNOWN_KINDS = {"VM": "verbatim", "TM": "template"}  # as public lists of Stable Diffusion's prompts call them


@dataclass(frozen=True)
class Reading:
    """How lists are read; see `PromptFile`.

    Attributes:
        format, delimiter: As there.
        column: The column of the prompts; None for the first of COLUMNS that there is.
        kinds: The column with the kinds of memorized prompts; None for "type", where there is such a column.
    """

    format: str | None = None
    column: str | None = None
    delimiter: str | None = None
    kinds: str | None = None

    def open(self, file: str) -> PromptFile:
        """Returns the list, not read yet. Raises InputError where there is no such file, or it cannot be read again."""
        found = PromptFile(file, self.format, self.column or COLUMNS, self.delimiter)
        if not found.again:
            raise InputError(f"{found.name} is no file that can be read twice: save it as one and name that")
        return found


@dataclass(frozen=True)
class Lists:
    """What is compared.

    Attributes:
        memorized: The positives by kind, each prompt once.
        negatives: The negatives by the name of their list, each prompt once in a list and none of them a positive.
        notes: What is to be said of the lists, a line each.
        whole: A digest of each file's prompts, as a calibration on it would have it, by the file's name.
    """

    memorized: dict[str, list[str]]
    negatives: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """All prompts, each once, positives first."""
        groups = (*self.memorized.values(), *self.negatives.values())
        return list(dict.fromkeys(text for texts in groups for text in texts))

    @property
    def positives(self) -> list[str]:
        """The memorized prompts of all kinds."""
        return [text for texts in self.memorized.values() for text in texts]

    @property
    def digests(self) -> dict[str, str]:
        """A digest of each group of prompts, by what messages call it."""
        groups = {f"the memorized prompts {name}": texts for name, texts in self.memorized.items()}
        groups |= {f"the negatives {name}": texts for name, texts in self.negatives.items()}
        return {name: prompts_digest(texts) for name, texts in groups.items()}


def read_lists(memorized: str, negatives: Sequence[str], reading: Reading) -> Lists:
    """Reads the lists.

    Args:
        memorized: The file of the positives.
        negatives: The files of the negatives.
        reading: How they are read.

    Raises:
        InputError: A file cannot be used, or nothing is left of it; or the kinds cannot be told apart.
    """
    notes: list[str] = []
    kinds = _by_kind(reading.open(memorized), reading.kinds, notes)
    whole = {memorized: prompts_digest([text for texts in kinds.values() for text in texts])}
    known = {alike(text) for texts in kinds.values() for text in texts}
    others: dict[str, list[str]] = {}
    for file, name in zip(negatives, _names(negatives), strict=True):
        source = reading.open(file)
        texts = _once(source, notes)
        whole[file] = prompts_digest(texts)
        left = [text for text in texts if alike(text) not in known]
        if not left:
            raise InputError(f"every prompt of {source.name} is among the memorized ones, too: give other negatives")
        if len(left) < len(texts):
            also = "prompt is" if len(texts) - len(left) == 1 else "prompts are"
            notes.append(
                f"{source.name}: {len(texts) - len(left)} {also} among the memorized ones, too, and left out here"
            )
        others[name] = left
    sizes = [(f"of the kind {kind}", texts) for kind, texts in kinds.items()]
    sizes += [(f"in {name}", texts) for name, texts in others.items()]
    for where, texts in sizes:
        if len(texts) < FEW:
            different = "prompt" if len(texts) == 1 else "prompts"
            notes.append(f"only {len(texts)} different {different} {where}: all that is said of them is vague")
    return Lists(kinds, others, notes, whole)


def without(texts: Iterable[str], evaluated: Iterable[str]) -> list[str]:
    """Returns those of the texts that ask for none of the things that the evaluated prompts ask for."""
    known = {alike(text) for text in evaluated}
    return [text for text in texts if alike(text) not in known]


def read_benign(file: str, reading: Reading) -> tuple[list[str], list[str]]:
    """Returns the prompts of a list to calibrate with, each once, and what is to be said of it. Errors as reading."""
    notes: list[str] = []
    return _once(reading.open(file), notes), notes


def _once(source: PromptFile, notes: list[str]) -> list[str]:
    rows = [row.value for row in source if isinstance(row, Row)]
    notes += source.notes()
    texts = list(dict.fromkeys(rows))
    if len(texts) < len(rows):
        again = len(rows) - len(texts)
        counts = "was there before, and counts once" if again == 1 else "were there before, and count once"
        notes.append(f"{source.name}: {again} of {len(rows)} prompts {counts}")
    return texts


def _by_kind(source: PromptFile, column: str | None, notes: list[str]) -> dict[str, list[str]]:
    texts = _once(source, notes)
    rows = {row.row: row.value for row in source if isinstance(row, Row)}
    told = source.beside(column or KINDS)
    if told is None:
        if column is not None:
            raise InputError(
                f"{source.name} has no column {printable(column, 40)!r} with kinds: leave out --kinds, or name another"
            )
        return {MEMORIZED: texts}
    kind_of = {text: told[number] for number, text in reversed(rows.items())}
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(kind_of[text] or "no kind", []).append(text)
    if len(kinds) <= MOST_KINDS:
        return kinds
    if column is not None:
        raise InputError(
            f"the column {printable(column, 40)!r} of {source.name} has {len(kinds)} different values, and at most "
            f"{MOST_KINDS} kinds are told apart: name another with --kinds"
        )
    notes.append(f"{source.name}: the column {KINDS!r} has {len(kinds)} different values, and is taken for no kinds")
    return {MEMORIZED: texts}


def _names(files: Sequence[str]) -> list[str]:
    """A short name for each list: what its file is called, with as many of its folders as it takes."""
    if len({str(Path(file).resolve()) for file in files}) < len(files):
        raise InputError("the same list of negatives is given twice: leave one out")
    bare = [Path(file).name.removesuffix(".gz") for file in files]
    short = [Path(name).stem for name in bare]
    if len(set(short)) == len(files):
        return short
    longer = [f"{Path(file).resolve().parent.name}/{name}" for file, name in zip(files, bare, strict=True)]
    return longer if len(set(longer)) == len(files) else list(files)
