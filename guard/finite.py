"""NaN and infinity are refused wherever numbers are compared: every comparison with NaN is false, which reads as an
answer."""

from typing import Any

import numpy as np

from .errors import InputError


def require_finite(values: Any, what: str) -> None:
    """Raises InputError, naming `what`, unless all these numbers are finite.

    Args:
        values: A number, or an array or tensor of any shape.
        what: In the plural, e.g. "the suspects' statistics".
    """
    numbers = values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values, np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{what} hold NaN or infinity, which cannot be compared: measure again, in float32 if need be")
