"""The former name of `guidance_similarity`, kept for code that imports it."""

from .guidance_similarity import guidance_similarity, whiten

__all__ = ["recall", "whiten"]

recall = guidance_similarity
