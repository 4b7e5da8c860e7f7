"""Statistics of images that were measured, in one file, so that nothing is measured twice."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

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
        self.numbers: dict[str, float] = {} if path is None or not path.exists() else _read(path)

    def get(self, key: str) -> float | None:
        """Returns the number of that key; None if it was not measured."""
        return self.numbers.get(key)

    def add(self, numbers: Mapping[str, float]) -> None:
        """Keeps more numbers. Raises InputError for NaN or infinity, or where the file cannot be written."""
        require_finite(list(numbers.values()), "the statistics of images")
        self.numbers.update(numbers)
        if self.path is None:
            return
        document = {"schema": SCHEMA, "statistics": self.numbers}
        write_file(self.path, (json.dumps(document, indent=0) + "\n").encode(), "file of statistics")


def _read(path: Path) -> dict[str, float]:
    document = read_object(path, LARGEST, "file of statistics", "remove it to measure again")
    numbers = document.get("statistics")
    if not isinstance(numbers, dict) or document.get("schema") != SCHEMA or not all(map(_fine, numbers.values())):
        raise InputError(f"{path} is no file of statistics of this version: remove it to measure again")
    return {key: float(value) for key, value in numbers.items()}


def _fine(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53
