"""Is this image a copy of one of mine? Images against a folder of references."""

from .compare import compare
from .index import ReferenceIndex
from .result import NONE, PART, SAME, SIMILAR, Comparison, ImageComparison, Match

__all__ = ["NONE", "PART", "SAME", "SIMILAR", "Comparison", "ImageComparison", "Match", "ReferenceIndex", "compare"]
