"""Thumbnails of the example workflows, as ComfyUI's own frontend shows them after a run on the built-in model.

python -m benchmarks.comfyui_pictures    # needs Chromium, and the tests' ComfyUI
"""

import sys
import tempfile
from pathlib import Path

from tests.nodes import shim
from tests.nodes.browser import NoBrowser, browsing
from tests.nodes.evidence import template_folders
from tests.nodes.installation import Unreachable, install
from tests.nodes.server import serving
from tests.nodes.thumbnails import thumbnail

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
PACK = "cryptomnesia"


def make(base: Path) -> None:
    """Runs every workflow of the pack, and writes its thumbnail beside it."""
    found = install()
    shim.add(found.packages)
    with serving(found, base / "server", {PACK: ROOT}) as server, browsing(server, base / "browser") as browser:
        template_folders(server.base / "input")  # what two of them look into
        for name in sorted(path.stem for path in WORKFLOWS.glob("*.json")):
            browser.open_template(PACK, name)
            browser.queue()
            photograph = browser.photograph(base / f"{name}.png")
            print(thumbnail(photograph, WORKFLOWS / f"{name}.jpg"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            make(Path(folder))
        except (NoBrowser, Unreachable) as missing:
            sys.exit(str(missing))
