"""Which nodes of a ComfyUI workflow save images, and whether they put provenance into them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..printable import printable
from ..strict_json import read_object

SAVES = "CryptomnesiaSaveImage"
_EMBED = 3  # its place among the node's widgets: after the prefix, prompts and sign


@dataclass(frozen=True)
class SavingNode:
    """A node that saves images.

    Attributes:
        name: Its class and number.
        provenance: Whether it is Save Image with Provenance.
        embeds: Whether it puts provenance into the image's own file.
    """

    name: str
    provenance: bool
    embeds: bool


def saving_nodes(path: Path, most: int) -> list[SavingNode]:
    """Returns the nodes of a workflow that save images, those of its subgraphs with them.

    Args:
        path: A workflow as ComfyUI's editor saves it, or in the API's format.
        most: Most bytes that are read.

    Raises:
        InputError: It is no workflow that can be read.
    """
    document = read_object(path, most, "workflow", "export it anew")
    document = document["prompt"] if isinstance(document.get("prompt"), dict) else document
    found = list(_edited(document)) if isinstance(document.get("nodes"), list) else list(_queued(document))
    if not found and not _looks_like_one(document):
        raise InputError(f"{printable(path)} is no ComfyUI workflow: export it with Save, or with Export (API)")
    return found


def _looks_like_one(document: Mapping[str, Any]) -> bool:
    known = isinstance(document.get("nodes"), list)
    return known or any(isinstance(node, dict) and "class_type" in node for node in document.values())


def _queued(document: Mapping[str, Any]) -> Iterator[SavingNode]:
    for number, node in document.items():
        if isinstance(node, dict) and _saves(node.get("class_type")):
            inputs = node.get("inputs")
            embed = inputs.get("embed") if isinstance(inputs, dict) else None
            yield _node(str(node["class_type"]), number, embed)


def _edited(document: Mapping[str, Any]) -> Iterator[SavingNode]:
    definitions = document.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    graphs = [document, *(one for one in subgraphs or () if isinstance(one, dict))]
    for graph in graphs:
        for node in graph.get("nodes") or ():
            # modes 2 and 4: never run, and bypassed
            if isinstance(node, dict) and _saves(node.get("type")) and node.get("mode") not in (2, 4):
                values = node.get("widgets_values")
                if isinstance(values, dict):
                    embed = values.get("embed")
                else:
                    embed = values[_EMBED] if isinstance(values, list) and len(values) > _EMBED else None
                yield _node(str(node["type"]), node.get("id"), embed)


def _saves(kind: Any) -> bool:
    return isinstance(kind, str) and (kind == SAVES or (kind.startswith("Save") and "Image" in kind))


def _node(kind: str, number: Any, embed: Any) -> SavingNode:
    name = printable(f"{kind} (number {number})", 80)
    return SavingNode(name, kind == SAVES, kind == SAVES and embed is True)
