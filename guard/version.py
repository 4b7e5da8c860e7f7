"""The version, which stands in pyproject.toml alone: ComfyUI's registry reads it there, without running anything."""

import re
from pathlib import Path

_PROJECT = re.compile(r'^\[project\]\nname = "cryptomnesia"\nversion = "([^"]+)"', re.MULTILINE)


def _version() -> str:
    """The version of the clone or node pack around this folder; else of the installed package."""
    try:
        project = _PROJECT.search((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8", "replace"))
    except OSError:
        project = None
    if project is not None:
        return project[1]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cryptomnesia")
    except PackageNotFoundError:
        return "unknown"


__version__ = _version()
