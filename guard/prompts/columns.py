"""Which column or field holds the prompts: the one of that name, or the only one that differs in case and blanks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from ..printable import printable


class MissingColumn(InputError):
    """A table has no such column."""


@dataclass
class Column:
    """The column that was asked for.

    Attributes:
        name: The name as the user gave it.
        file: What messages call the file.
        taken: The names that were taken for it although they differ, in the order in which they were met.
        others: Names that will do where there is no column of the first, the first of them that there is.
    """

    name: str
    file: str
    taken: list[str] = field(default_factory=list)
    others: Sequence[str] = ()

    def among(self, names: Sequence[str]) -> int | None:
        """Returns the column's position among these names, or None. Raises InputError where two of them fit equally."""
        for wanted in (self.name, *self.others):
            place = self._place(wanted, names)
            if place is not None:
                return place
        return None

    def _place(self, wanted: str, names: Sequence[str]) -> int | None:
        exact = [place for place, name in enumerate(names) if name == wanted]
        places = exact or [place for place, name in enumerate(names) if _same(name, wanted)]
        if len(places) > 1:
            which = ", ".join(f"{names[place][:60]!r} (number {place + 1})" for place in places)
            raise InputError(f"{self.file} has several columns {wanted!r}: {which}: rename all but one of them")
        if not places:
            return None
        # of several names that will do, none is the user's own
        if not exact and not self.others and names[places[0]] not in self.taken:
            self.taken.append(names[places[0]])
        return places[0]

    def required(self, names: Sequence[str]) -> int:
        """Returns the place as `among` does. Raises MissingColumn, telling the names, where there is none."""
        index = self.among(names)
        if index is None:
            columns = ", ".join(printable(name, 60) for name in names if name) or "none"
            wanted = " or ".join(repr(name) for name in (self.name, *self.others))
            raise MissingColumn(f"{self.file} has no column {wanted} (its columns: {columns}): name one with --column")
        return index

    def notes(self) -> list[str]:
        """Returns a line for each other name that was taken for the column."""
        return [f"{self.file}: {name[:60]!r} is taken for the column {self.name!r}" for name in self.taken[:3]]


def _same(name: str, other: str) -> bool:
    return name.strip().casefold() == other.strip().casefold()
