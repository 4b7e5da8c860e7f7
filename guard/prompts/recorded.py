"""Which prompt was an image made of, as far as something beside it or in it says so? Never guessed at.

Looked at, in this order: the sidecar of this library, what A1111 and its kin write (`parameters`, also in EXIF), the
graph that ComfyUI writes (`prompt`), a text file of the image's name, and the record in a folder that
`lineage.generate` filled.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..envelope import is_envelope, payload
from ..errors import InputError, require
from ..images import FORMATS, UNREADABLE, sidecar_path
from ..strict_json import parse_json, read_json
from .captions import caption_of

RECORD = "images.json"
LARGEST = 10 << 20  # bytes of a text, a sidecar or a graph
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_ADAPTERS = re.compile(r"<(?:lora|lyco|lycoris|hypernet):[^<>]*>", re.IGNORECASE)
_TEXTS = ("text", "value", "string", "prompt")  # what nodes call a text that they pass on
_FARTHEST = 16  # links from a sampler to its text


def recorded_prompt(image: Any) -> str | None:
    """Returns the prompt of a file or a Pillow image; None where nothing says it, or nothing that can be relied on."""
    if not isinstance(image, str | Path):
        return _from_metadata(getattr(image, "info", {}))
    path = Path(image)
    ways = (_sidecar, lambda file: _from_metadata(_metadata(file)), _beside)
    found = next((text for way in ways if (text := way(path)) is not None), None)
    return recorded_for_folder(path.parent) if found is None else found


def known_prompts(images: Iterable[Any]) -> list[str] | None:
    """Returns the prompt of each image; None unless all are known."""
    prompts = [recorded_prompt(image) for image in images]
    known = [text for text in prompts if text is not None]
    return known if len(known) == len(prompts) else None


def recorded_for_folder(folder: Path) -> str | None:
    """Returns the prompt of all images of a folder that `lineage.generate` filled; None for any other."""
    with suppress(OSError, ValueError):
        record = read_json(folder / RECORD, LARGEST)
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            return record["prompt"]
    return None


def alike(prompt: str) -> str:
    """Returns the prompt without adapters, case and blanks, so that prompts which ask for the same are equal."""
    words = _ADAPTERS.sub(" ", prompt).replace(",", " , ").casefold().split()
    kept = [word for i, word in enumerate(words) if word != "," or (i + 1 < len(words) and words[i + 1] != ",")]
    return " ".join(kept).strip(" ,")


def _sidecar(path: Path) -> str | None:
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        document = read_json(sidecar_path(path), LARGEST)
        told = (parse_json(payload(document)) if is_envelope(document) else document)["predicate"]["prompt"]
        if told["mode"] == "plain":
            text = told.get("rewritten") or told["original"]
            return text if isinstance(text, str) else None
    return None


def _metadata(path: Path) -> dict[str, Any]:
    """What the file says before its pixels, which stay packed; nothing of a file that is no image."""
    pillow = require("PIL.Image", "provenance")
    if not path.is_file():  # a pipe may never end
        return {}
    with suppress(*UNREADABLE, pillow.DecompressionBombError), pillow.open(path, formats=FORMATS) as image:
        info = dict(image.info)
        comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
        if isinstance(comment, bytes | str):
            info.setdefault("parameters", _comment(comment))
        return info
    return {}


def _comment(data: bytes | str) -> str:
    """An EXIF comment, whose first eight bytes name its encoding."""
    if isinstance(data, str):
        return data
    encoding = "utf-16-be" if data[:8].rstrip(b"\0") == b"UNICODE" else "utf-8"
    return data[8:].decode(encoding, "replace").strip("\0")


def _from_metadata(info: Mapping[str, Any]) -> str | None:
    parameters, graph = info.get("parameters"), info.get("prompt")
    if isinstance(parameters, str) and len(parameters) <= LARGEST:
        return _before_settings(parameters)
    if isinstance(graph, str) and len(graph) <= LARGEST:
        with suppress(ValueError):
            return _of_graph(parse_json(graph, depth=64))
    return None


def _before_settings(parameters: str) -> str | None:
    """A1111's text up to the negative prompt or the settings; None for a text that has neither."""
    lines = parameters.splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith(("Negative prompt:", "Steps:"))]
    return "\n".join(lines[: ends[0]]).strip() if ends else None


def _of_graph(graph: Any) -> str | None:
    """The text that all samplers of a ComfyUI graph are led to by plain links; None if any is led elsewhere."""
    nodes = {str(name): node for name, node in graph.items() if _is_node(node)} if isinstance(graph, dict) else {}
    asked = [node["inputs"]["positive"] for node in nodes.values() if "ampler" in node["class_type"] and _asks(node)]
    texts = {_text_at(nodes, link) for link in asked}
    return texts.pop() if len(texts) == 1 else None


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _asks(node: Mapping[str, Any]) -> bool:
    return "positive" in node["inputs"]


def _text_at(nodes: Mapping[str, Any], value: Any) -> str | None:
    for _ in range(_FARTHEST):
        if isinstance(value, str):
            return value
        # only first outputs of nodes that pass one thing on: whatever else a node does with texts is not known
        if not (isinstance(value, list) and len(value) == 2 and value[1] == 0 and str(value[0]) in nodes):
            return None
        inputs = nodes[str(value[0])]["inputs"]
        ways = [name for name in (*_TEXTS, "conditioning") if name in inputs]
        linked = [name for name, other in inputs.items() if isinstance(other, list) and name not in ("clip", "model")]
        if len(ways) != 1 or any(name != ways[0] for name in linked):
            return None
        value = inputs[ways[0]]
    return None


def _beside(path: Path) -> str | None:
    """What is in the text file of an image's name, IMAGE.txt; None without one, or if it is no prompt."""
    with suppress(InputError):
        return caption_of(path)
    return None
