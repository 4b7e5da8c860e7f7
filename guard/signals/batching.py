"""Many rows through a network, as many at a time as its device has memory for."""

from collections.abc import Callable, Iterator

from torch import Tensor

from ..errors import OutOfMemory

VALUES = 2**17  # latent values per call; more keeps no processor busier


def default_rows(values: int) -> int:
    """Rows per call where each has that many latent values."""
    return max(1, VALUES // values)


def in_batches(
    ask: Callable[[slice], Tensor], count: int, batch_rows: int, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Asks about rows 0 to count - 1, in order; calls are halved whenever the device runs out of memory.

    Args:
        ask: ask(rows) -> one row of a tensor for each row asked about.
        count: How many rows there are.
        batch_rows: Most rows of a call.
        progress: Called with the number of rows done so far.

    Raises:
        OutOfMemory: Not even one row fits.
    """
    start = 0
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
            progress(start)
