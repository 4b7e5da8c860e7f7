"""Where an image is recited: from a prompt to a map, a mask and a picture that people can read."""

from .locate import locate, locate_late
from .location import Location
from .trajectory import Late, late_level

__all__ = ["Late", "Location", "late_level", "locate", "locate_late"]
