"""Many rows through a network, as many at a time as its device has memory for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import OutOfMemory
from ..progress import Progress

VALUES, CPU_VALUES = 2**17, 2**16  # latent values per call; small networks outgrow a CPU's caches


def default_rows(values: int, device: torch.device | None = None) -> int:
    """Returns how many rows, of so many latent values each, a call should have; fewer on a CPU, where it is quicker."""
    most = CPU_VALUES if device is not None and device.type == "cpu" else VALUES
    return max(1, most // values)


def in_batches(
    ask: Callable[[slice], Tensor], count: int, batch_rows: int, progress: Progress | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Asks about rows 0 to count - 1, in order, in calls of equal size, halved whenever the device runs out of memory.

    Args:
        ask: ask(rows) -> one row of a tensor for each row asked about.
        count: How many rows there are.
        batch_rows: Most rows of a call.
        progress: Called with the numbers of rows done and of all.

    Raises:
        OutOfMemory: Not even one row fits.
    """
    start, batch_rows = 0, -(-count // -(-count // batch_rows))
    while start < count:
        rows = slice(start, min(start + batch_rows, count))
        try:
            answer = ask(rows)
        except OutOfMemory:
            if batch_rows == 1:
                raise
            batch_rows = max(1, batch_rows // 2)
            continue
        start = rows.stop
        yield rows, answer
        if progress:
            progress(start, count)
