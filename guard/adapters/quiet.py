"""Keeps diffusers and transformers from talking: their bars and hints say nothing about what is asked here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import require


def quiet() -> None:
    """Silences all but errors from now on. Raises MissingPackage where one of the two is not installed."""
    for logging in _loggings():
        logging.set_verbosity_error()
        logging.disable_progress_bar()


@contextmanager
def quietly() -> Iterator[None]:
    """Quiet for the time being. Raises MissingPackage where one of the two is not installed."""
    before = [(logging, logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in _loggings()]
    quiet()
    try:
        yield
    finally:
        for logging, verbosity, bars in before:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()


def _loggings() -> list[Any]:
    return [require(f"{package}.utils.logging", "diffusers") for package in ("diffusers", "transformers")]
