"""Makes the library in `guard/` importable as `cryptomnesia`, wherever this folder was cloned to."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "cryptomnesia"


def load() -> None:
    """Puts the library of this folder into `sys.modules`, unless one is there: there must be no two of them."""
    if NAME in sys.modules:
        return
    folder = ROOT / "guard"
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"the library cannot be loaded from {folder}: install the extension again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NAME]
        raise


load()
