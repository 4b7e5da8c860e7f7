"""Recipes that made the weights which ship: the built-in model, the image encoder, and the benchmarks' zoo.

They run from a clone, `pip install -e ".[train]"`, and are no part of the installed package.
"""
