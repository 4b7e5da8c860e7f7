"""Trains the built-in model; see `train`."""

from .train import main

main()
