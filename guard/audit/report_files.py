"""Puts a report on disk: the page, and the scripts beside it that hold the texts of a large run."""

import hashlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import create, write_atomically
from ..run_folder import unwritable
from . import table
from .page import AuditPage, render
from .results import Spool

BESIDE = "report"
EMBEDDED = 2_000  # rows whose texts stand in the page itself


def publish(path: Path, page: AuditPage, texts: Spool, order: NDArray[np.int64]) -> Path:
    """Writes the page, whose table shows the texts in that order. The older one is whole until the new one is there.

    Args:
        path: Where the page is written.
        page: The page, its table without texts.
        texts: The texts of all rows.
        order: (N,) positions of the rows among the texts, in the table's order.

    Returns:
        The path.

    Raises:
        InputError: Something cannot be written.
    """
    beside, positions = path.parent / BESIDE, order.tolist()
    try:
        if len(positions) <= EMBEDDED:
            folder, filled = None, replace(page.table, texts=[texts[i] for i in positions])
        else:
            folder = _write_texts(beside, texts, positions)
            filled = replace(page.table, folder=f"{BESIDE}/{folder.name}")
        write_atomically(path, render(replace(page, table=filled)).encode())
        _remove_others(beside, folder)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _write_texts(beside: Path, texts: Spool, order: Sequence[int]) -> Path:
    """A folder with the texts as scripts. It is called by their digest, so that no page finds those of another."""
    beside.mkdir(exist_ok=True)
    folder, digest = beside / f".{secrets.token_hex(8)}.tmp", hashlib.sha256()
    folder.mkdir()
    try:
        for number, script in enumerate(_scripts(texts, order)):
            digest.update(script)
            create(folder / table.script_name(number), script, 0o666)
        final = beside / digest.hexdigest()[:16]
        if final.exists():
            shutil.rmtree(final)
        folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return final


def _scripts(texts: Spool, order: Sequence[int]) -> Iterator[bytes]:
    for first in range(0, len(order), table.CHUNK):
        yield table.script(first, [texts[i] for i in order[first : first + table.CHUNK]]).encode()


def _remove_others(beside: Path, kept: Path | None) -> None:
    """What older reports left, and reports that were cut off."""
    for folder in beside.iterdir() if beside.is_dir() else ():
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
    if kept is None and beside.is_dir():
        beside.rmdir()
