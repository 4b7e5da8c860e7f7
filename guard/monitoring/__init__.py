"""Does a training begin to memorize its images? Asked while it goes on, of the captions that it trains on."""

from .monitor import MemorizationMonitor
from .record import CaptionScore, EpochRecord

__all__ = ["CaptionScore", "EpochRecord", "MemorizationMonitor"]
