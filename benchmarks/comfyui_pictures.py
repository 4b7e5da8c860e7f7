"""Thumbnails of the example workflows: what ComfyUI's own frontend shows after a run on the built-in model.

python -m benchmarks.comfyui_pictures    # needs Chromium, and the tests' ComfyUI

The graph of one of them, as the README shows it, is photographed, too.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.nodes import shim
from tests.nodes.browser import NoBrowser, browsing
from tests.nodes.evidence import template_folders
from tests.nodes.installation import Unreachable, install
from tests.nodes.server import serving
from tests.nodes.templates import CHECK, NAMES
from tests.nodes.thumbnails import framed, parts, thumbnail

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
PACK = "cryptomnesia"


def make(base: Path) -> None:
    """Runs every workflow of the pack, and writes its thumbnail beside it, and the picture of a graph."""
    found = install()
    shim.add(found.packages)
    with serving(found, base / "server", {PACK: ROOT}) as server, browsing(server, base / "browser") as browser:
        template_folders(server.base / "input")  # what two of them look into
        for name in NAMES:
            browser.open_template(PACK, name)
            history = browser.queue()
            saved = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
            print(thumbnail(parts(browser, name, saved, history), WORKFLOWS / f"{name}.jpg"))
            if name == CHECK:
                print(framed(browser.photograph(base / "graph.png"), ROOT / "docs" / "comfyui.jpg"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            make(Path(folder))
        except (NoBrowser, Unreachable) as missing:
            sys.exit(str(missing))
