"""The records of a training, in memory and, where asked, in a file that a resumed training goes on with."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_if_there, write_file
from ..printable import printable_line
from ..strict_json import parse_json
from .judging import level_of
from .record import CaptionScore, EpochRecord, digest

SCHEMA = "cryptomnesia/monitor/1"
LIMIT = 64 * 2**20  # bytes
WHAT = "monitor's log"


class History:
    """Records, one per call.

    Args:
        path: The file of JSON lines, or None for none; its first line tells the settings, each other one a record.
        settings: What records must share to be comparable.
        captions, held_out: The captions that are measured.
        with_captions: Write captions as they are.

    Attributes:
        records: The records so far.
        before: The errors of all images before training, once they are known.

    Raises:
        InputError: The file is another monitor's, or no such file.
    """

    def __init__(
        self,
        path: str | Path | None,
        settings: dict[str, Any],
        captions: Sequence[str],
        held_out: Sequence[str],
        *,
        with_captions: bool,
    ):
        self.records: list[EpochRecord] = []
        self.before: list[float] | None = None
        self._path, self._with_captions = None if path is None else Path(path), with_captions
        lists = hashlib.sha256(json.dumps([list(captions), list(held_out)]).encode()).hexdigest()
        head = {"schema": SCHEMA, **settings, "captions": len(captions), "held_out": len(held_out), "lists": lists}
        self._head = json.loads(json.dumps(head))
        if self._path is not None:
            self._resume(self._path, {digest(caption): caption for caption in captions})

    def require_next(self, epoch: float) -> None:
        """Raises InputError unless the epoch is a finite number and larger than the last one."""
        if isinstance(epoch, bool) or not isinstance(epoch, int | float) or not math.isfinite(epoch):
            raise InputError(f"the epoch is a number, not {epoch!r}")
        if self.records and epoch <= self.records[-1].epoch:
            raise InputError(
                f"epoch {epoch:g} does not come after {self.records[-1].epoch:g}: count on, or give another log"
            )

    def next_level(self, significance: float) -> float:
        """Returns the part of the significance that the next call may use up; all calls use no more than it."""
        return level_of(len(self.records) + 1, significance)

    def begin(self, before: list[float]) -> None:
        """Keeps the errors before training, without which a training that is resumed has no ground.

        Raises InputError where the file cannot be written.
        """
        self.before = before
        self._save()

    def add(self, record: EpochRecord) -> EpochRecord:
        """Keeps a record, and returns it. Raises InputError where the file cannot be written; memory has it then."""
        self.records.append(record)
        self._save()
        return record

    def _save(self) -> None:
        if self._path is not None:
            lines = [
                {**self._head, "before": self.before},
                *(each.to_dict(with_captions=self._with_captions) for each in self.records),
            ]
            write_file(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode(), WHAT)

    def _resume(self, path: Path, by_digest: dict[str, str]) -> None:
        data = read_if_there(path, LIMIT, WHAT)
        if not data:
            return
        name = printable_line(str(path))
        try:
            head, *lines = [parse_json(line) for line in data.decode("utf-8").splitlines() if line.strip()]
        except ValueError as why:
            raise InputError(f"{name} is no {WHAT} ({why}): choose another file") from why
        before = head.pop("before", None) if isinstance(head, dict) else None
        if head != self._head or not isinstance(before, list) or len(before) != head["captions"] + head["held_out"]:
            raise InputError(f"{name} is of other captions or settings: choose another file")
        try:
            self.before = [float(error) for error in before]
            self.records = [_record(line, by_digest) for line in lines]
        except (TypeError, KeyError, AttributeError, ValueError) as why:
            raise InputError(f"{name} holds a line that is no record ({why}): choose another file") from why


def _record(line: dict[str, Any], by_digest: dict[str, str]) -> EpochRecord:
    names = {field.name for field in fields(EpochRecord)}
    if set(line) != names:
        raise TypeError(f"it has {', '.join(sorted(set(line) ^ names))} too many or too few")
    worst = tuple(CaptionScore(_caption(c, by_digest), c["score"], c["p_value"]) for c in line["worst"])
    interval = None if line["interval"] is None else (line["interval"][0], line["interval"][1])
    return EpochRecord(**{**line, "flags": tuple(line["flags"]), "worst": worst, "interval": interval})


def _caption(found: dict[str, Any], by_digest: dict[str, str]) -> str:
    return str(found["caption"]) if "caption" in found else by_digest[found["sha256"]]
