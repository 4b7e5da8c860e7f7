"""Cryptomnesia in AUTOMATIC1111's web UI, Forge and SD.Next: what the hooks in scripts/ do.

The web UI's modules are imported late and one by one, and programs are told apart by what they have: versions and forks
change faster than that.
"""

from . import library  # noqa: F401  # first of all: it makes the library importable
