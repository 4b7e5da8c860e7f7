"""Calibrations of attribution in files, `NAME.attribution.safetensors`: read strictly, written atomically."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CalibrationError, InputError
from ..printable import printable
from ..strict_json import parse_json
from ..tensors import read_tensors, write_tensors
from .combination import LEAST, AttributionCalibration
from .confounding import Reasons
from .evidence import GROUPS
from .gaussian import Gaussian
from .likeness import SIDE, Seen
from .verification import Verifier

SCHEMA = "cryptomnesia/attribution/2"
SUFFIX = ".attribution.safetensors"
_PLAIN = ("names", "fingerprints", "groups", "alpha", "temperature", "slope", "images", "created", "copies")
_REASONS = ("confounded", "unchecked")
_FIELDS = {"schema", *_PLAIN, *_REASONS, "digests"}
_TENSORS = {"spread", "means", "precision", "own_means", "own_spread", "weights", "held_out", "small_copies"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def save_calibration(calibration: AttributionCalibration, path: str | Path) -> None:
    """Writes the file atomically. Raises InputError for another ending or a folder that cannot be written to."""
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise InputError(f"such calibrations are saved as NAME{SUFFIX}, not as {path.name!r}: rename it")
    values = {name: getattr(calibration, name) for name in _PLAIN}
    values |= {name: [[*pair, why] for pair, why in getattr(calibration, name).items()] for name in _REASONS}
    header = {name: json.dumps(value) for name, value in (values | {"digests": calibration.seen.digests}).items()}
    gaussian, verifier = calibration.gaussian, calibration.verifier
    tensors = {"spread": gaussian.spread, "means": gaussian.means, "precision": gaussian.precision}
    tensors |= {"own_means": verifier.means, "own_spread": verifier.spread, "weights": verifier.weights}
    tensors |= {"held_out": calibration.held_out, "small_copies": calibration.seen.copies}
    write_tensors(path, tensors, {"schema": SCHEMA, **header}, "calibration")


def load_calibration(path: str | Path) -> AttributionCalibration:
    """Reads a file that `save_calibration` wrote, and returns the calibration.

    Raises:
        InputError: It cannot be read.
        CalibrationError: Anything in it is missing, extra or odd.
    """
    path = Path(path)
    header, tensors = read_tensors(path, "calibration")
    if header.get("schema") != SCHEMA:
        raise CalibrationError(f"{path} is no calibration of attribution of this version ({SCHEMA}): calibrate again")
    odd = sorted((set(header) ^ _FIELDS) | (set(tensors) ^ _TENSORS))
    if odd:
        raise CalibrationError(f"the calibration {path} has odd parts ({', '.join(odd)}): calibrate again")
    try:
        return _parse({name: parse_json(header[name]) for name in _FIELDS - {"schema"}}, tensors)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise CalibrationError(f"the calibration {path} is malformed ({error}): calibrate again") from error


def _parse(values: dict[str, Any], tensors: dict[str, Tensor]) -> AttributionCalibration:
    texts = {name: _texts(name, values[name]) for name in ("names", "fingerprints", "groups")}
    numbers = {name: float(values[name]) for name in ("alpha", "temperature", "slope")}
    images = tuple(int(n) for n in values["images"])
    count, size, verifier_size = len(texts["names"]), len(tensors["spread"]), len(tensors["own_spread"])
    shapes = {"spread": (size,), "means": (count, size), "precision": (size, size), "held_out": (sum(images),)}
    shapes |= {"own_spread": (verifier_size,), "own_means": (count, verifier_size), "weights": (2 * verifier_size + 1,)}
    seen = _seen(values["digests"], tensors["small_copies"], sum(images))
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float64 or not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not {shape}, finite float64")
    fine = (
        count == len(texts["fingerprints"]) == len(images) == len(set(texts["names"]))
        and min(images) >= LEAST
        and set(texts["groups"]) <= set(GROUPS)
        and 0 < numbers["alpha"] < 1
        and numbers["temperature"] > 0
        and numbers["slope"] > 0
        and numbers["alpha"] * (sum(images) + 1) >= 1
        and bool((tensors["spread"] > 0).all() and (tensors["own_spread"] > 0).all())
        and bool((tensors["held_out"].diff() >= 0).all())
    )
    if not fine:
        raise ValueError("it holds impossible values")
    return AttributionCalibration(
        names=texts["names"],
        fingerprints=texts["fingerprints"],
        groups=texts["groups"],
        alpha=numbers["alpha"],
        temperature=numbers["temperature"],
        slope=numbers["slope"],
        images=images,
        created=str(values["created"]),
        gaussian=Gaussian(tensors["spread"], tensors["means"], tensors["precision"]),
        verifier=Verifier(tensors["own_means"], tensors["own_spread"], tensors["weights"]),
        held_out=tensors["held_out"],
        seen=seen,
        copies=int(values["copies"]),
        confounded=_reasons(values["confounded"], texts["names"]),
        unchecked=_reasons(values["unchecked"], texts["names"]),
    )


def _seen(digests: Any, copies: Tensor, images: int) -> Seen:
    """What is known of all images that were learned from, or of none where the file does not hold it."""
    fine = isinstance(digests, list) and all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests)
    if not fine or len(digests) not in (0, images):
        raise ValueError("the digests are not those of its images")
    if tuple(copies.shape) != (len(digests), 3 * SIDE * SIDE) or copies.dtype != torch.uint8:
        raise ValueError("small_copies are not those of its images")
    return Seen(tuple(digests), copies)


def _reasons(values: Any, names: tuple[str, ...]) -> Reasons:
    fine = isinstance(values, list) and all(
        isinstance(one, list) and len(one) == 3 and isinstance(one[2], str) and set(one[:2]) <= set(names)
        for one in values
    )
    if not fine:
        raise ValueError("its reasons are no pairs of candidates")
    return {(a, b): printable(why) for a, b, why in values}


def _texts(name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is no list of texts")
    return tuple(values)
