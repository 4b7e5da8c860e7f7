"""How long work tells that it goes on."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called as `progress(done, total)` with how much is done, and of how much in all; None where that is not known."""
