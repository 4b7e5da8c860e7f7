"""The former name of `mitigate`, kept for code that imports it."""

from .mitigate import METHODS, failed, mend, stacked

__all__ = ["METHODS", "failed", "mend", "stacked"]
