"""The pack as ComfyUI loads it. A node whose package is missing is left out with a message; the others stay."""

import logging
from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from ..guard.errors import MissingPackage
from . import folder

MODULES = (
    "load_demo_model",
    "memorization_check",
    "memorization_gate",
    "memorization_heatmap",
    "mitigate_conditioning",
    "rewrite_prompt",
    "guarded_noise",
    "calibrate_model",
    "spectral_signature",
    "save_signature",
    "load_signature",
    "attribution_candidate",
    "attribute_image",
    "membership_evidence",
    "lineage_pool_model",
    "model_lineage",
    "save_image",
    "verify_provenance",
)


class CryptomnesiaExtension(ComfyExtension):
    """All nodes of the pack that can run here."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES if (node := _node(module)) is not None]


def _node(module: str) -> type[io.ComfyNode] | None:
    try:
        return import_module(f".{module}", __package__).NODE
    except (MissingPackage, ImportError) as error:
        logging.warning("Cryptomnesia: the node %s is left out: %s", module.replace("_", " "), error)
        return None


async def comfy_entrypoint() -> CryptomnesiaExtension:
    """What ComfyUI calls once, after importing the pack."""
    folder.register()
    return CryptomnesiaExtension()
