"""Does a model hold these pictures? What it makes of their words, beside them, as evidence that can be handed on."""

from .captions import Asked, Captions, read_captions
from .evidence import Copy, Evidence, Extraction
from .extract import Extractor, extract
from .run import Sampling

__all__ = ["Asked", "Captions", "Copy", "Evidence", "Extraction", "Extractor", "Sampling", "extract", "read_captions"]
