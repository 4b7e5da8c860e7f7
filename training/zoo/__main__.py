"""Trains the zoo; see `train`."""

from .train import main

main()
