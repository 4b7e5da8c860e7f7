"""Examples in docstrings, which the API reference shows, give what they say."""

import doctest
import importlib

from ..helpers.snippets import ROOT


def test_examples_of_docstrings():
    shown = []
    for path in sorted((ROOT / "guard").rglob("*.py")):
        if ">>> " not in path.read_text("utf-8"):
            continue
        name = ".".join(["cryptomnesia", *path.relative_to(ROOT / "guard").with_suffix("").parts])
        module = importlib.import_module(name.removesuffix(".__init__"))
        tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert tried.attempted and not tried.failed, name
        shown.append(name)
    assert {"cryptomnesia.denoiser", "cryptomnesia.signals.memorization"} <= set(shown)
