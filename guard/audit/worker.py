"""Holds the models of an audit once and measures batches of rows, whatever a single row does to it."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..errors import InputError, NonFiniteError, OutOfMemory
from .rows import Done, Reject, Row, reject

GAIN = 1.05  # a larger batch must be that much faster
LONGEST_TRIAL = 2.0  # seconds


class About(NamedTuple):
    """What an audit's numbers rest on; the same on every worker, and when a run is resumed.

    Attributes:
        model: Fingerprint of the model; of several models, a digest of their fingerprints; None where none is used.
        calibration: The calibration's id, or None.
        alpha: The calibration's false-alarm rate, in (0, 1), or None.
        draws: Number of noise draws per prompt, or None.
        reference: What prompts are compared with; None for the empty branch, and where there are no prompts.
    """

    model: str | None
    calibration: str | None
    alpha: float | None
    draws: int | None
    reference: str | None = None


class Work(Protocol):
    """What an audit does with its rows; a record depends on its row alone, not on the others of the batch."""

    about: About

    def prepare(self, rows: Sequence[Row]) -> tuple[list[Any], list[Reject]]:
        """Reads what the rows name, without any model; returns items with a `row` each, and what cannot be read."""
        ...

    def measure(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns one record per item.

        Raises InputError or NonFiniteError where an item is at fault, OutOfMemory where they are too many.
        """
        ...


class Job(Protocol):
    """A work that is still to be opened, small enough to be sent to another process.

    Attributes:
        kind: "prompts" or "images".
        seed: Seed of the noise.
        most_rows: Largest number of rows that share a batch.
    """

    @property
    def kind(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def most_rows(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """Returns what its numbers rest on besides files, as plain data for JSON."""
        ...

    def open(self) -> Work:
        """Loads the models, and returns the work."""
        ...

    def schema(self) -> Any:
        """Returns the columns of the records, a pyarrow schema."""
        ...


class Prepared(NamedTuple):
    """A batch that was read, and what of it could not be."""

    items: list[Any]
    rejects: list[Reject]


class Worker:
    """One work with its models in memory.

    Args:
        job: What to do with rows; opened here.
        clock: Returns seconds, for the trial of batch sizes.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.perf_counter):
        self.work, self.clock = job.open(), clock
        self.most: float = float("inf")  # items per call that memory has room for

    def __call__(self, batch: Sequence[Row | Reject]) -> Done:
        """Prepares and measures a batch; returns what became of it. Raises what `measure` raises."""
        return self.measure(self.prepare(batch))

    def prepare(self, batch: Sequence[Row | Reject]) -> Prepared:
        """Reads a batch and returns it, the half of the work that may run beside `measure`."""
        items, rejects = self.work.prepare([row for row in batch if isinstance(row, Row)])
        return Prepared(items, [row for row in batch if isinstance(row, Reject)] + rejects)

    def measure(self, prepared: Prepared) -> Done:
        """Measures a batch that was read; returns the records, and the rejects of both halves.

        Raises:
            OutOfMemory: Not even one row fits.
            NotApplicable: The question has no meaning for the model.
        """
        return self._measured(prepared.items) + Done(rejects=prepared.rejects)

    def _measured(self, items: list[Any]) -> Done:
        if not items:
            return Done()
        if len(items) <= self.most:
            try:
                return Done(self.work.measure(items))
            except OutOfMemory:
                if len(items) == 1:
                    raise
                self.most = len(items) // 2
            except (InputError, NonFiniteError) as error:
                if len(items) == 1:
                    return Done(rejects=[reject(items[0].row, error)])
        middle = -(-len(items) // 2)
        return self._measured(items[:middle]) + self._measured(items[middle:])

    def best_batch(self, sample: Sequence[Row], most: int) -> int:
        """Returns how many rows at a time are fastest, at most `most`, by a short trial on the sample."""
        best, fastest, size = 1, 0.0, 1
        if not sample:
            return best
        self(sample[:1])  # the first call of a network takes longer
        while size <= most:
            start = self.clock()
            self((list(sample) * -(-size // len(sample)))[:size])
            seconds = self.clock() - start
            if self.most < size:
                return int(self.most)
            rate = size / max(seconds, 1e-9)
            if rate > GAIN * fastest:
                best, fastest = size, rate
            if seconds > LONGEST_TRIAL or size >= 4 * best:
                break
            size *= 2
        return best
