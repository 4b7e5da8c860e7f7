"""Reads a sidecar strictly: what is not exactly a statement of this version is refused, never guessed at."""

import datetime
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..envelope import is_envelope, payload
from ..errors import SidecarError, require
from ..printable import printable
from ..strict_json import parse_json
from .files import read_file
from .statement import LIMIT
from .values import SAFE

MOST_VALUES = 50_000  # more would take long to compare with the schema; a usual sidecar has a hundred


def read_statement(path: str | Path) -> dict[str, Any]:
    """Reads a *.cryptomnesia.json file, and returns the statement in it as plain JSON data.

    Raises:
        SidecarError: It cannot be read, is larger than 10 MiB, no UTF-8, no JSON, holds over 50,000 values or integers
            beyond 2^53, or does not fit the schema.
        MissingPackage: jsonschema is not installed.
    """
    return parse(read_file(Path(path), LIMIT, "sidecar"))


def parse(data: bytes) -> dict[str, Any]:
    """Returns the statement in these bytes. Raises SidecarError, which says in one line what is wrong."""
    return opened(data)[0]


def opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns the statement in these bytes, and the envelope around it, unchecked; None for one without.

    Raises SidecarError, which says in one line what is wrong.
    """
    try:
        document = parse_json(data)
        envelope = document if is_envelope(document) else None
        document = document if envelope is None else parse_json(payload(envelope))
    except ValueError as error:
        raise SidecarError(f"the sidecar cannot be used: {error}") from error
    _require_schema(document)
    created(document)
    return document, envelope


def created(document: dict[str, Any]) -> datetime.datetime:
    """Returns when the statement says it was made, in UTC. Raises SidecarError for a day that no calendar has."""
    text = document["predicate"]["created"]
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError as error:
        raise SidecarError(f"the sidecar's time {printable(text)} does not exist") from error


@cache
def _validator() -> Any:
    jsonschema = require("jsonschema", "provenance")
    schema = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(schema)


def misfit(document: Any) -> str | None:
    """Returns where and by which rule a document does not fit the schema; None if it fits."""
    for number, value in enumerate(_values(document)):
        if number >= MOST_VALUES:
            return f"the whole (more than {MOST_VALUES} values)"
        if isinstance(value, int) and abs(value) > SAFE:
            return "an integer (beyond 2^53)"
    error = next(iter(_validator().iter_errors(document)), None)
    # the path and the rule, not the message, which may quote megabytes
    return None if error is None else f"{printable(error.json_path, 100)} ({error.validator})"


def _values(document: Any) -> Iterator[Any]:
    """Everything inside, at any depth."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        yield value
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _require_schema(document: Any) -> None:
    where = misfit(document)
    if where is not None:
        raise SidecarError(
            f"the sidecar does not fit the schema at {where}: it was edited, or written by another version"
        )
