"""A Ray cluster: actors hold the models, Ray places and restarts them, the caller reads and writes.

Ray restarts an actor whose process died, but would send the deadly batch again for ever. So what a dying worker leaves
is done again here in halves, until a row that kills its worker is alone.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import CryptomnesiaError, InputError, require
from .rows import Done, Reject, Row, reject
from .worker import About, Job, Worker

MOST_DEATHS = 3  # of workers on one row
MOST_IN_A_ROW = 40  # failures without any result between them: it is not the rows
PAUSE = 0.5  # seconds, while Ray finds out that a worker is dead
LONGEST_RESTART = 600.0  # seconds without any answer, while Ray restarts workers; a busy machine takes its time
SAFE_BATCH = 8  # where the trial itself was deadly
OBJECT_STORE = 256 << 20  # bytes; batches are small

Batch = Sequence[Row | Reject]


class RayWorker:
    """A worker in a process of Ray's; loads its models when it is first asked, and again after a restart."""

    def __init__(self, job: Job):
        self.job, self.worker = job, None

    def opened(self) -> Worker:
        """Returns the worker with its models."""
        if self.worker is None:
            self.worker = Worker(self.job)
        return self.worker

    def about(self) -> About:
        """Returns what the numbers rest on, with the models that were loaded."""
        return self.opened().work.about

    def best_batch(self, sample: Sequence[Row], most: int) -> int:
        """Returns how many rows at a time are fastest, as `Worker.best_batch` does."""
        return self.opened().best_batch(sample, most)

    def run(self, batch: Batch) -> tuple[About, Done]:
        """Returns what the numbers rest on, and what became of a batch."""
        worker = self.opened()
        return worker.work.about, worker(batch)


class RayEngine:
    """Runs a job on Ray, on the cluster at RAY_ADDRESS or one of its own on this machine; a context manager.

    Args:
        job: What to do with rows; opened by every actor.
        workers: Number of actors; by default one per GPU, or per CPU slot where there is no GPU.

    Raises:
        MissingPackage: Ray is not installed.
        InputError: The cluster has no room for that many workers.
    """

    def __init__(self, job: Job, workers: int | None = None):
        self.ray = require("ray", "ray")
        self.job, self.workers, self.started_ray = job, workers, False
        self.actors: list[Any] = []

    def __enter__(self) -> "RayEngine":
        if not self.ray.is_initialized():
            self._start()
        try:
            kind, slots = self._slots()
            count = self.workers or slots
            if not 1 <= count <= slots:
                raise InputError(f"the Ray cluster has room for {slots} workers, one per {kind}, not for {count}")
            options = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
            actor = self.ray.remote(RayWorker).options(max_restarts=-1, max_task_retries=0, **options)
            self.actors = [actor.remote(self.job) for _ in range(count)]
            self._about = self._loaded()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        if self.started_ray:
            self.ray.shutdown()

    def _start(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out
        self.started_ray = True
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not os.environ.get("RAY_ADDRESS"):
            local = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            options |= local | {"object_store_memory": OBJECT_STORE, "num_cpus": self.workers}
        self.ray.init(**options)

    def _loaded(self) -> About:
        try:
            return self._get(self.actors[0].about.remote())
        except self.ray.exceptions.RayActorError as error:
            raise InputError(
                f"a worker died while it loaded the model ({_line(error)}): it may lack memory, so try fewer --workers"
            ) from error

    def _slots(self) -> tuple[str, int]:
        there = self.ray.cluster_resources()
        kind = "GPU" if there.get("GPU", 0) >= 1 else "CPU"
        return kind, int(there.get(kind, 0))

    @property
    def about(self) -> About:
        """What the numbers rest on, with the models that the first worker loaded."""
        return self._about

    def best_batch(self, sample: Sequence[Row], most: int) -> int:
        """Returns how many rows at a time are fastest on the first worker, as `Worker.best_batch` does."""
        try:
            return self._get(self.actors[0].best_batch.remote(sample, most))
        except self.ray.exceptions.RayActorError:
            return min(SAFE_BATCH, most)

    def map(self, batches: Iterable[Batch]) -> Iterator[Done]:
        """Yields what becomes of each batch, in any order.

        Raises:
            InputError: A worker loaded another model than the first, or workers die whatever they are given.
            OutOfMemory, NotApplicable: As in `Worker.measure`.
        """
        fresh, again, idle = iter(batches), deque[Batch](), list(self.actors)
        running: dict[Any, tuple[Any, Batch | None]] = {}
        deaths, in_a_row, waited = Counter[int](), 0, 0.0
        while True:
            while idle and (batch := again.popleft() if again else next(fresh, None)):
                actor = idle.pop()
                running[actor.run.remote(batch)] = actor, batch
            if idle and all(batch is None for _, batch in running.values()):
                return
            (ready,), _ = self.ray.wait(list(running), num_returns=1)
            actor, batch = running.pop(ready)
            try:
                about, done = self._get(ready)
            except self.ray.exceptions.RayActorError as error:
                restarting = batch is None and isinstance(error, self.ray.exceptions.ActorUnavailableError)
                in_a_row += not restarting
                waited += PAUSE * restarting
                if in_a_row > MOST_IN_A_ROW or waited > LONGEST_RESTART:
                    raise InputError(
                        f"workers die whatever they are given ({_line(error)}): they may lack memory, so try fewer "
                        "--workers; what is finished is kept"
                    ) from error
                if batch is None:
                    time.sleep(PAUSE)
                # loading again, which no row is to be blamed for
                running[actor.run.remote([])] = actor, None
                done = Done() if batch is None else _after_death(batch, deaths, again)
            else:
                idle.append(actor)
                waited = 0.0
                if about != self._about:
                    raise InputError(
                        "the model or its calibration was replaced during the run: put the old files back and give the "
                        "same command, or start anew with another --out"
                    )
            if len(done):
                in_a_row = 0
                yield done

    def _get(self, reference: Any) -> Any:
        """The answer, or the error that the worker raised."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CryptomnesiaError):
                raise error.cause from None
            raise


def _after_death(batch: Batch, deaths: Counter[int], again: "deque[Batch]") -> Done:
    """Puts a dead worker's batch back in halves; a row alone that has killed its last worker is rejected."""
    if len(batch) > 1:
        middle = len(batch) // 2
        again.extend([batch[:middle], batch[middle:]])
        return Done()
    row = batch[0]
    deaths[row.row] += 1
    if isinstance(row, Row) and deaths[row.row] >= MOST_DEATHS:
        return Done(rejects=[reject(row, f"{MOST_DEATHS} workers died on it")])
    again.append(batch)
    return Done()


def _line(error: BaseException) -> str:
    return str(error).split("\n")[0][:160]
