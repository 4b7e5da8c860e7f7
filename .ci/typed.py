"""Writes .venv/typed, where pyright finds what no package brings: `guard/` under its name, and stubs of hosts' modules.

ComfyUI's modules are there at run time only, inside ComfyUI. Each that is imported somewhere gets a stub that knows
nothing, so that a module that is missing anywhere else is an error.
"""

import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "comfyui_version",
    "folder_paths",
    "latent_preview",
    "server",
    "aiohttp",  # ComfyUI's server
    "tomli",  # for Python 3.10 alone
}
STUB = "from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports by their whole name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def write(target: Path) -> None:
    """The folder anew, atomically enough for one user."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / "cryptomnesia").symlink_to(ROOT / "guard", target_is_directory=True)
    for folder in ("guard", "nodes", "tests"):
        for name in {name for path in (ROOT / folder).rglob("*.py") for name in imported(path)}:
            place = target
            for part in name.split(".") if name.split(".")[0] in HOSTS else ():
                place = place / part
                place.mkdir(exist_ok=True)
                (place / "__init__.pyi").write_text(STUB, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
