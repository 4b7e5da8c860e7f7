"""One audit from its first row to its last, in a folder that can be stopped at and resumed from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..run_folder import locked
from .engine_local import LocalEngine
from .engine_ray import RayEngine
from .inputs import Prints, print_of
from .manifest import Manifest, open_run
from .rows import PART, Done, Reject, Row
from .shards import Shards
from .worker import About, Job

SAMPLE = 16  # rows that the trial of batch sizes is made with


class Source(Protocol):
    """Rows in a fixed order, that can be read again.

    Attributes:
        total: Number of rows.
        prints: Digests of the rows as they were when the source was made.
    """

    total: int
    prints: Prints

    def digest(self) -> str:
        """Returns the SHA-256, in hex, of all that is read, as it is now."""
        ...

    def mark(self, row: Row | Reject) -> bytes:
        """Returns the bytes that stand for a row in the prints, as it is now."""
        ...

    def __iter__(self) -> Iterator[Row | Reject]: ...


class Engine(Protocol):
    """What measures rows, somewhere."""

    @property
    def about(self) -> About:
        """What the numbers rest on, with the models that were loaded."""
        ...

    def best_batch(self, sample: Sequence[Row], most: int) -> int:
        """Returns how many rows at a time are fastest, at most `most`."""
        ...

    def map(self, batches: Iterable[Sequence[Row | Reject]]) -> Iterator[Done]:
        """Yields what becomes of each batch, in any order."""
        ...


def open_engine(name: str, job: Job, workers: int | None = None) -> LocalEngine | RayEngine:
    """Returns the engine of that name, "local" or "ray", to be entered as a context.

    Raises:
        InputError: Unknown name, or several workers where there is one.
        MissingPackage: Ray is not installed.
    """
    if name == "ray":
        return RayEngine(job, workers)
    if name != "local":
        raise InputError(f"unknown engine {name!r}: use local or ray")
    if workers not in (None, 1):
        raise InputError(f"the local engine has one worker, not {workers}: add --engine ray for more")
    return LocalEngine(job)


class Audit:
    """A run in a folder.

    Args:
        source: The rows of the input.
        job: What is done with the rows.
        out: The folder; made if it is not there, resumed from if it holds the same run.
        settings: What else the numbers rest on, besides the job's own settings; plain data for JSON.
        digests: Digests of the files behind the settings, but for the input.

    Raises:
        InputError: The folder holds a run with other settings, or cannot be written to.
        MissingPackage: pyarrow is not installed.
    """

    def __init__(
        self,
        source: Source,
        job: Job,
        out: Path,
        settings: Mapping[str, Any] | None = None,
        digests: Mapping[str, str | None] | None = None,
    ):
        self.source, self.job, self.out = source, job, out
        schema = job.schema()  # first: without pyarrow nothing is begun
        known = {**(settings or {}), **job.settings(), "rows_per_part": PART}
        files = {"input": source.prints.digest(), **(digests or {})}
        self.manifest = open_run(out, Manifest(job.kind, known, files, str(job.seed), source.total))
        self.shards = Shards(out, schema, source.total)
        self.done, self.stopping = self.kept, False
        self._fault: str | None = None

    @property
    def total(self) -> int:
        """Number of rows of the input."""
        return self.source.total

    @property
    def kept(self) -> int:
        """Number of rows that are done and kept on disk; once `steps` has ended, no interruption can lose them."""
        return self.shards.rows_kept

    @property
    def complete(self) -> bool:
        """Whether every row is done."""
        return self.kept == self.total

    def steps(self, engine: Engine, batch: int | None = None) -> Iterator[int]:
        """Does what is missing, and yields the number of rows done each time that some are.

        Args:
            engine: An engine that was entered as a context.
            batch: Rows per call of the network; by default the run's, which a trial chose when it began.

        Raises:
            InputError: The models are others than when the run began, the disk is full, the input changed, or another
                process works in the folder.
            KeyboardInterrupt: `stop` was called; all that was begun is done and kept.
            OutOfMemory: The device has no memory for a single row.
            NotApplicable: The question has no meaning for the model.
        """
        with locked(self.out):
            yield from self._steps(engine, batch)

    def stop(self) -> None:
        """Begins no more rows; `steps` ends once those that were begun are done."""
        self.stopping = True

    def _steps(self, engine: Engine, batch: int | None) -> Iterator[int]:
        self.shards.load()  # another run may have been at work since
        self.done = self.kept
        self.manifest.bind(engine.about, self.out)
        self.manifest.batch = batch or self.manifest.batch or self._trial(engine)
        self.manifest.save(self.out)
        try:
            for done in engine.map(self.shards.missing(self._rows(), self.manifest.batch)):
                self.shards.add(done)
                self.done += len(done)
                yield self.done
        finally:
            self.shards.flush()
        if self._fault is not None:
            raise _changed(self._fault)
        if self.stopping:
            raise KeyboardInterrupt
        if self.source.digest() != self.source.prints.digest():
            raise _changed("the input changed while it was read")

    def _rows(self) -> Iterator[Row | Reject]:
        """The rows that are not finished; those of a part once it is known that they are what they were.

        Ends early, with a word in `_fault`, at the first that are not: what was begun before is sound, and is kept.
        """
        self._fault = None
        source = iter(self.source)
        for part, print_ in enumerate(self.source.prints.parts):
            rows = list(islice(source, min(PART, self.total - part * PART)))
            if part in self.shards.finished:
                continue
            if len(rows) < min(PART, self.total - part * PART):
                self._fault = "the input became shorter while it was read"
                return
            if print_of(map(self.source.mark, rows)) != print_:
                self._fault = f"the input changed while it was read, in rows {rows[0].row} to {rows[-1].row}"
                return
            for row in rows:
                if self.stopping:
                    return
                yield row

    def finish(self, **results: Any) -> None:
        """Marks the run as finished, with results about all rows together: values of `Manifest` by name.

        Raises InputError where that cannot be written.
        """
        for name, value in results.items():
            setattr(self.manifest, name, value)
        self.manifest.finished = True
        self.manifest.save(self.out)

    def _trial(self, engine: Engine) -> int:
        """The fastest batch; that of a short run is small, so that the trial is shorter than the run."""
        sample = list(islice((row for row in self.source if isinstance(row, Row)), SAMPLE))
        return engine.best_batch(sample, max(1, min(self.job.most_rows, self.total // 8)))


def _changed(what: str) -> InputError:
    return InputError(f"{what}: put it back as it was and give the same command, or start anew with another --out")
