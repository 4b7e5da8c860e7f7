"""Reading calibration files strictly: what could mean two things, or promises what it cannot hold, is refused."""

import datetime
import re
from pathlib import Path
from typing import Any

import torch

from .combination import FEATURES
from .errors import CalibrationError
from .printable import printable
from .reference import REFERENCES
from .signals.rings import RINGS
from .strict_json import read_object

SCHEMA = "cryptomnesia/calibration/1"
LEAST = 100  # benign prompts
LIMIT = 64 * 2**20  # bytes; a million scores
MOST_DRAWS = 1024
MOST_TIME = 1_000_000
LARGEST_SIDE = 65_536
LARGEST = 1e300  # of a number: sums and quotients stay finite
_NEEDED = {
    "schema",
    "n",
    "fingerprint",
    "family",
    "dtype",
    "latent_shape",
    "draws",
    "alpha",
    "seed",
    "created",
    "combination",
    "scores",
}
_OPTIONAL = {"prompts", "reference", "time", "expectation"}
_DIGEST = re.compile("[0-9a-f]{64}")


def read_values(path: Path) -> dict[str, Any]:
    """Returns the fields of a calibration file, checked and in Python's types, without its schema.

    Of its "combination" the energies of benign prompts are called `energies`, and the weights `weights`; "expectation"
    is a dictionary of lists, or None.

    Raises:
        CalibrationError: It cannot be read, is too large, or anything in it is missing, extra, odd or impossible.
    """
    document = read_object(path, LIMIT, "calibration", "calibrate again", error=CalibrationError)
    if document.get("schema") != SCHEMA:
        raise CalibrationError(f"{path} is no calibration of this version ({SCHEMA}): calibrate again")
    odd = sorted(set(document) - _OPTIONAL ^ _NEEDED)
    if odd:
        names = ", ".join(printable(name, 40) for name in odd[:5])
        raise CalibrationError(f"the calibration {path} has missing or unknown fields ({names}): calibrate again")
    wrong = sorted(name for name, fine in _fine(document).items() if not fine)
    if wrong:
        raise CalibrationError(f"the calibration {path} holds impossible values ({', '.join(wrong)}): calibrate again")
    values = {name: value for name, value in document.items() if name not in ("schema", "n", "combination")}
    weights = document["combination"].get("weights")
    return values | {
        "seed": int(document["seed"]),
        "latent_shape": tuple(document["latent_shape"]),
        "reference": document.get("reference", REFERENCES[0]),
        "time": document.get("time"),
        "expectation": _floats(document.get("expectation")),
        "energies": [float(value) for value in document["combination"]["reference"]],
        "weights": None if weights is None else [float(value) for value in weights],
        "scores": [float(value) for value in document["scores"]],
    }


def _fine(document: dict[str, Any]) -> dict[str, bool]:
    """Whether each field may be what it is; exact types, since true is 1 and 1.5 is nearly 2 in too many languages."""
    scores, alpha, combination = document["scores"], document["alpha"], document["combination"]
    known = isinstance(scores, list) and all(map(_is_number, scores))
    n = len(scores) if known else 0
    shape = document["latent_shape"]
    return {
        "scores": known and n >= LEAST,
        "n": _is_whole(document["n"], 1, 2**53) and document["n"] == n,
        # as in calibrate: without enough prompts no p-value is as small
        "alpha": _is_number(alpha) and 0 < alpha < 1 and alpha * (n + 1) >= 1,
        "fingerprint": _is_name(document["fingerprint"]),
        "family": _is_name(document["family"]),
        "dtype": _is_dtype(document["dtype"]),
        "latent_shape": isinstance(shape, list)
        and len(shape) == 3
        and all(_is_whole(side, 1, LARGEST_SIDE) for side in shape),
        "draws": _is_whole(document["draws"], 1, MOST_DRAWS),
        "seed": _is_seed(document["seed"]),
        "created": _is_date(document["created"]),
        "combination": isinstance(combination, dict)
        and {"reference"} <= set(combination) <= {"reference", "weights"}
        and _are_energies(combination["reference"])
        and ("weights" not in combination or _are_weights(combination["weights"])),
        "reference": document.get("reference", REFERENCES[0]) in REFERENCES,
        "expectation": "expectation" not in document or _is_expectation(document["expectation"]),
        "time": "time" not in document or _is_whole(document["time"], 0, MOST_TIME),
        "prompts": document.get("prompts") is None or _is_match(_DIGEST, document["prompts"]),
    }


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_match(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_dtype(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.startswith("torch.")
        and isinstance(getattr(torch, value.removeprefix("torch."), None), torch.dtype)
    )


def _is_seed(value: Any) -> bool:
    return _is_match(re.compile("0|-?[1-9][0-9]{0,19}"), value) and -(2**63) <= int(value) < 2**64


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _are_energies(value: Any) -> bool:
    return isinstance(value, list) and len(value) == RINGS and all(_is_number(v) and v > 0 for v in value)


def _are_weights(value: Any) -> bool:
    return isinstance(value, list) and len(value) == FEATURES and all(map(_is_number, value))


def _is_expectation(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"centre", "direction"}:
        return False
    parts = list(value.values())
    known = all(isinstance(part, list) and all(map(_is_number, part)) for part in parts)
    return known and len(parts[0]) == len(parts[1]) <= LARGEST_SIDE


def _floats(expectation: dict[str, list[Any]] | None) -> dict[str, list[float]] | None:
    if expectation is None:
        return None
    return {name: [float(number) for number in numbers] for name, numbers in expectation.items()}
