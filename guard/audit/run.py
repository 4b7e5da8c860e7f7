"""One audit from its first row to its last, in a folder that can be stopped at and resumed from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from .engine_local import LocalEngine
from .engine_ray import RayEngine
from .manifest import Manifest, open_run
from .rows import Done, Reject, Row
from .shards import PART, Shards
from .worker import About, Job

SAMPLE = 16  # rows that the trial of batch sizes is made with


class Source(Protocol):
    """Rows in a fixed order, that can be read again."""

    total: int

    def digest(self) -> str:
        """Of all that is read."""
        ...

    def __iter__(self) -> Iterator[Row | Reject]: ...


class Engine(Protocol):
    """What measures rows, somewhere."""

    @property
    def about(self) -> About: ...

    def best_batch(self, sample: Sequence[Row], most: int) -> int: ...

    def map(self, batches: Iterable[Sequence[Row | Reject]]) -> Iterator[Done]: ...


def open_engine(name: str, job: Job, workers: int | None = None) -> LocalEngine | RayEngine:
    """The engine of that name, "local" or "ray", to be entered as a context.

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
        source: Its rows.
        job: What is done with them.
        out: The folder; made if it is not there, resumed from if it holds the same run.
        settings: What else the numbers rest on, besides the job's own; plain data for JSON.
        digests: Of the files behind them, but for the input.

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
        files = {"input": source.digest(), **(digests or {})}
        self.manifest = open_run(out, Manifest(job.kind, known, files, str(job.seed), source.total))
        self.shards = Shards(out, schema, source.total)
        self.done = self.kept

    @property
    def total(self) -> int:
        """Rows of the input."""
        return self.source.total

    @property
    def kept(self) -> int:
        """Rows that no stop can take away any more."""
        return self.shards.rows_finished

    @property
    def complete(self) -> bool:
        """Whether every row is done."""
        return self.kept == self.total

    def steps(self, engine: Engine, batch: int | None = None) -> Iterator[int]:
        """Does what is missing, and yields the number of rows done each time that some are.

        Args:
            engine: Entered.
            batch: Rows per call of the network; by default the run's, found by a trial when it began.

        Raises:
            InputError: The models are others than when the run began, the disk is full, or the input lost rows.
            OutOfMemory, NotApplicable: As they say.
        """
        self.manifest.bind(engine.about, self.out)
        self.manifest.batch = batch or self.manifest.batch or self._trial(engine)
        self.manifest.save(self.out)
        for done in engine.map(self.shards.missing(self.source, self.manifest.batch)):
            self.shards.add(done)
            self.done += len(done)
            yield self.done
        if not self.complete:
            raise InputError("the input became shorter while it was read: start anew with another --out")

    def finish(self, **found: Any) -> None:
        """Marks the run as finished, with what was found about all rows together."""
        for name, value in found.items():
            setattr(self.manifest, name, value)
        self.manifest.finished = True
        self.manifest.save(self.out)

    def _trial(self, engine: Engine) -> int:
        """The fastest batch; that of a short run is small, so that the trial is shorter than the run."""
        sample = list(islice((row for row in self.source if isinstance(row, Row)), SAMPLE))
        return engine.best_batch(sample, max(1, min(self.job.most_rows, self.total // 8)))
