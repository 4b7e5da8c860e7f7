"""Does a training begin to memorize its images? Asked while it goes on, beside images that are held back."""

from .monitor import MemorizationMonitor
from .record import CaptionScore, EpochRecord

__all__ = ["CaptionScore", "EpochRecord", "MemorizationMonitor"]
