"""The pack as ComfyUI loads it. A node whose package is missing is left out with a message; the others stay."""

import logging
import pkgutil
from importlib import import_module
from pathlib import Path

from comfy_api.latest import ComfyExtension, io

from ..guard.errors import MissingPackage
from ..guard.questions import QUESTIONS
from . import folder, routes


class CryptomnesiaExtension(ComfyExtension):
    """All nodes of the pack that can run here: every module of this folder that has a NODE."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Returns the nodes' classes, in the order in which `guard.questions` names them."""
        return [node for module in modules() if (node := _node(module)) is not None]


def modules() -> list[str]:
    """Returns the names of this folder's modules: first those that the registry names, then the others, sorted."""
    here = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    named = [module for question in QUESTIONS for module in question.nodes]
    return [name for name in named if name in here] + [name for name in here if name not in named]


def _node(module: str) -> type[io.ComfyNode] | None:
    """Returns a module's node; None for a module that has none, or whose package is missing."""
    try:
        return getattr(import_module(f".{module}", __package__), "NODE", None)
    except (MissingPackage, ImportError) as error:
        logging.warning("Cryptomnesia: the node %s is left out: %s", module.replace("_", " "), error)
        return None


async def comfy_entrypoint() -> CryptomnesiaExtension:
    """Returns the extension; ComfyUI calls this once, after importing the pack."""
    folder.register()
    routes.register()
    return CryptomnesiaExtension()
