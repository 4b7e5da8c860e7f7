"""Whose child is this model? From nothing but images that it made, or from its weights."""

from ..encoders import ClipEncoder, Encoder, OnnxEncoder, open_encoder
from .by_weights import Descent, Kinship, descent
from .folders import images_in
from .generation import Recipe, generate
from .multiscale import MultiScale
from .parentage import Parentage, find_parent

__all__ = [
    "ClipEncoder",
    "Descent",
    "Encoder",
    "Kinship",
    "MultiScale",
    "OnnxEncoder",
    "Parentage",
    "Recipe",
    "descent",
    "find_parent",
    "generate",
    "images_in",
    "open_encoder",
]
