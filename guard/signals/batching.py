"""Many rows through a network, as many at a time as its device has memory for."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import OutOfMemory
from ..progress import Progress

POSITIONS, CPU_POSITIONS = 2**15, 2**13  # of latents in a call; small networks outgrow a CPU's caches
POSITION_BYTES = 2**16  # more than the activations of a latent position take in any network that was measured
FREE_SHARE = 0.5  # of the free memory that a call may take


def rows_per_call(denoiser: Denoiser, shape: Sequence[int], wanted: int | None = None) -> int:
    """Returns how many rows of latents (C, H, W) a call should have, at most what was found to fit.

    By default as many as the pipeline's own step has, which there is memory for: two, or one where the model was
    distilled. More where images are so small that more are quicker; on a GPU, where half of its free memory has room
    for them, too.

    Args:
        denoiser: The model.
        shape: The latents' shape, (..., H, W).
        wanted: As many as that in place of the default.
    """
    positions = shape[-2] * shape[-1]
    most = denoiser.fits.get(tuple(shape))
    rows = wanted or max(2 if denoiser.reference == "empty branch" else 1, _quick(denoiser.device, positions))
    return rows if most is None else min(rows, most)


def _quick(device: torch.device, positions: int) -> int:
    if device.type != "cuda":
        return CPU_POSITIONS // positions
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # the allocator's own
    free = torch.cuda.mem_get_info(device)[0] + unused
    return min(POSITIONS, int(FREE_SHARE * free / POSITION_BYTES)) // positions


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
