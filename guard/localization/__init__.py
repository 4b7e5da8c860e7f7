"""Where an image reproduces training data: from a prompt to a map, a mask and a picture that people can read."""

from ..signals.difference import Baseline
from .locate import OUTLINE, PROBES, locate, locate_late, rows_of_map
from .location import Location
from .trajectory import STEPS, Late, late_level

__all__ = [
    "OUTLINE",
    "PROBES",
    "STEPS",
    "Baseline",
    "Late",
    "Location",
    "late_level",
    "locate",
    "locate_late",
    "rows_of_map",
]
