"""Statistics of images that were measured, in one file, so that nothing is measured twice."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_file
from ..finite import require_finite
from ..strict_json import read_object

SCHEMA = "cryptomnesia/membership-statistics/1"
LARGEST = 256 << 20  # bytes


class Store:
    """Keeps numbers by a digest of image, prompt, model, autoencoder, size and settings.

    Args:
        path: A JSON file, written whole after every addition; None keeps the numbers in memory only.

    Raises:
        InputError: The file is there and is no such file.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.numbers: dict[str, float] = {}
        self.vectors: dict[str, list[float]] = {}
        if path is not None and path.exists():
            self.numbers, self.vectors = _read(path)

    def get(self, key: str) -> float | None:
        """Returns the number of that key; None if it was not measured."""
        return self.numbers.get(key)

    def vector(self, key: str) -> list[float] | None:
        """Returns the several numbers of that key; None if they were not measured."""
        return self.vectors.get(key)

    def add(self, numbers: Mapping[str, float], vectors: Mapping[str, Sequence[float]] | None = None) -> None:
        """Keeps more numbers, and several of one key. Raises InputError for NaN or infinity, or where the file cannot
        be written."""
        require_finite(list(numbers.values()), "the statistics of images")
        self.numbers.update(numbers)
        for key, several in ({} if vectors is None else vectors).items():
            require_finite(several, "the gradients of images")
            self.vectors[key] = [float(f"{value:.8g}") for value in several]  # more than 32 bits hold
        if self.path is None:
            return
        document: dict[str, Any] = {"schema": SCHEMA, "statistics": self.numbers}
        if self.vectors:
            document["vectors"] = self.vectors
        write_file(self.path, (json.dumps(document, indent=0) + "\n").encode(), "file of statistics")


def _read(path: Path) -> tuple[dict[str, float], dict[str, list[float]]]:
    document = read_object(path, LARGEST, "file of statistics", "remove it to measure again")
    numbers, vectors = document.get("statistics"), document.get("vectors", {})
    whole = document.get("schema") == SCHEMA
    if whole and isinstance(numbers, dict) and isinstance(vectors, dict) and _all_known(numbers, vectors):
        return {key: float(value) for key, value in numbers.items()}, vectors
    raise InputError(f"{path} is no file of statistics of this version: remove it to measure again")


def _all_known(numbers: dict[str, Any], vectors: dict[str, Any]) -> bool:
    return all(map(_fine, numbers.values())) and all(map(_all_fine, vectors.values()))


def _all_fine(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(map(_fine, values))


def _fine(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53
