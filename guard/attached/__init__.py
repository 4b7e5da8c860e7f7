"""Guarded generation: a pipeline's own call, checked at its first step and mended if asked for."""
