"""Which image a workflow started from, where it started from one: that one becomes the parent of what is saved."""

from pathlib import Path

import folder_paths

from ..guard.sidecar import Marking
from .graph import Graph, Prompt

_LOADERS = ("LoadImage", "LoadImageOutput")
_PICTURES = ("LATENT", "IMAGE", None)
_INPAINTING = ("VAEEncodeForInpaint", "InpaintModelConditioning", "SetLatentNoiseMask")


def marking_of(prompt: Prompt, node_id: str) -> Marking:
    """Returns how a node's images are marked: the settings' way, with the image that they were made from.

    Only links of latents and images count: a picture that guides a ControlNet is no parent. Where several images were
    put together, or the file is gone, none is named.

    Args:
        prompt: The workflow as queued.
        node_id: The id of the node that saves.
    """
    graph = Graph(prompt)
    first = graph.link(node_id, "images")
    waiting, seen, loaders, inpainted = [first[0]] if first else [], set(), [], False
    while waiting:
        number = waiting.pop()
        if number in seen or number not in graph.prompt:
            continue
        seen.add(number)
        kind = graph.kind(number)
        inpainted = inpainted or kind in _INPAINTING
        if kind in _LOADERS:
            loaders.append(number)
        for name in graph.inputs(number):
            link = graph.link(number, name)
            if link is not None and graph.output(link)[0] in _PICTURES:
                waiting.append(link[0])
    names = {graph.value(graph.inputs(number).get("image")) for number in loaders}
    parent = _file(names.pop()) if len(names) == 1 else None
    return Marking() if parent is None else Marking(parent=parent, inpainted=inpainted)


def _file(name: object) -> Path | None:
    if not isinstance(name, str):
        return None
    try:
        path = Path(folder_paths.get_annotated_filepath(name))
    except (OSError, ValueError):
        return None
    return path if path.is_file() else None
