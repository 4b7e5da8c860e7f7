"""One process: a thread asks the model while the caller reads ahead and writes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .rows import Done, Reject, Row
from .worker import About, Job, Worker

AHEAD = 1  # batches that are read while one is measured


class LocalEngine:
    """Runs a job here; a context manager.

    Args:
        job: What to do with rows; opened when the context is entered.
    """

    def __init__(self, job: Job):
        self.job = job

    def __enter__(self) -> "LocalEngine":
        self.worker = Worker(self.job)
        self.thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *error: Any) -> None:
        self.thread.shutdown(cancel_futures=True)
        del self.worker  # its models may be large

    @property
    def about(self) -> About:
        """What the numbers rest on, with the models that were loaded."""
        return self.worker.work.about

    def best_batch(self, sample: Sequence[Row], most: int) -> int:
        """Returns how many rows at a time are fastest, as `Worker.best_batch` does."""
        return self.worker.best_batch(sample, most)

    def map(self, batches: Iterable[Sequence[Row | Reject]]) -> Iterator[Done]:
        """Yields what becomes of each batch, in order. Raises what `Worker.measure` raises."""
        pending: deque[Future[Done]] = deque()
        for batch in batches:
            pending.append(self.thread.submit(self.worker.measure, self.worker.prepare(batch)))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
