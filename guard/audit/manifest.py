"""run.json: what an audit is made of, so that it is only ever resumed as the same audit."""

import datetime
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import write_atomically
from ..run_folder import refuse, unwritable
from ..strict_json import read_json
from .inputs import sha256_of
from .ledger import RESULTS
from .worker import About

SCHEMA = 2
FILE = "run.json"
LARGEST = 16 << 20  # bytes of run.json


@dataclass
class Manifest:
    """What run.json holds.

    Attributes:
        schema: Version of this file and of the results.
        kind: "prompts" or "images".
        settings: All that the numbers rest on, as the user gave it; plain data for JSON.
        digests: Digests of the files behind the settings, or None where there is none.
        model, calibration, alpha, draws, reference: The values of `About`, known once the models were loaded.
        seed: Seed of the run.
        rows_total: Number of rows of the input.
        batch: Rows per call of the network, as a trial showed to be fastest.
        finished: Whether all rows are done.
        started: When the run began, in UTC.
        version: Version of this package.
        membership: Result of the membership test over the whole folder, if there was one.
    """

    kind: str
    settings: dict[str, Any]
    digests: dict[str, str | None]
    seed: str
    rows_total: int
    model: str | None = None
    calibration: str | None = None
    alpha: float | None = None
    draws: int | None = None
    reference: str | None = None
    batch: int | None = None
    finished: bool = False
    started: str = ""
    version: str = __version__
    membership: dict[str, Any] | None = None
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Writes run.json atomically. Raises InputError where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / FILE, json.dumps(asdict(self), indent=1).encode())
        except OSError as error:
            raise unwritable(folder / FILE, error) from error

    @property
    def bound(self) -> bool:
        """Whether the models were loaded before."""
        return self.batch is not None

    def bind(self, about: About, folder: Path) -> None:
        """Keeps what was loaded the first time. Raises InputError if it differs the next time."""
        if self.bound:
            refuse(folder, {name: getattr(self, name) for name in About._fields}, about._asdict())
        for name, value in about._asdict().items():
            setattr(self, name, value)


def open_run(folder: Path, now: Manifest) -> Manifest:
    """Opens the run of a folder if it is the same as the one to be started now, which is begun if there is none.

    Returns:
        The run as it is on disk.

    Raises:
        InputError: The folder holds a run with other settings (the message tells the difference), or something odd.
    """
    if not (folder / FILE).exists():
        if (folder / RESULTS).exists():
            raise InputError(f"{folder} holds results but no {FILE} that says of what: give another --out")
        now.started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        now.save(folder)
        return now
    run = _read(folder / FILE)
    refuse(folder, _compared(run), _compared(now))
    return run


def _compared(run: Manifest) -> dict[str, Any]:
    return {"kind": run.kind, "seed": run.seed, **run.settings, **run.digests}


def files_digest(path: Path) -> str:
    """Returns the SHA-256, in hex, of a file, or over all files of a folder by name.

    Raises InputError if one cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    beside = path.with_suffix("")  # configs of a single file
    folders = [path] if path.is_dir() else [beside] if beside.is_dir() else []
    files = [] if path.is_dir() else [path]
    files += sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        name = file.name if file == path else file.relative_to(folders[0]).as_posix()
        digest.update(f"{name} {sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read(path: Path) -> Manifest:
    try:
        document = read_json(path, LARGEST)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        run = Manifest(**document)
        if not (isinstance(run.settings, dict) and isinstance(run.digests, dict) and isinstance(run.finished, bool)):
            raise ValueError("its settings are odd")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no run of this version ({error}): give another --out") from error
    return run
