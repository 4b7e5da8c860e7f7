"""Values that every reader of JSON understands alike."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

SAFE = 2**53  # beyond it readers that hold numbers as doubles lose digits, and C2PA fails from 2**63 on


def plain(value: Any) -> Any:
    """Returns the same data with integers over 2^53 as strings, NaN and infinity as None, no lone surrogates in texts.

    Raises InputError for anything that JSON cannot hold.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if abs(value) <= SAFE else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise InputError(f"a sidecar holds numbers and texts, not {type(value).__name__}: convert it first")
