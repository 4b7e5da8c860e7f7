"""The workflow as queued: what feeds an input, by link and output slot, and which values are known before a run."""

import re
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ..guard.sidecar import UNKNOWN

Prompt = dict[str, Any]  # node id -> {"class_type", "inputs"}, as queued
Link = tuple[str, int]  # node id and output slot
ANY = ("*", "COMFY_MATCHTYPE_V3")
SWITCHES = ("ComfySwitchNode", "ComfySoftSwitchNode")
# ComfyUI's own nodes in these modules compute values from their inputs alone
_PURE = tuple(
    f"comfy_extras.nodes_{name}" for name in ("string", "primitive", "logic", "math", "seed", "number_convert")
)


class Graph:
    """A queued workflow, with the nodes' classes where ComfyUI knows them."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt

    def kind(self, node_id: str) -> str:
        """Returns the node's class by name; empty if there is no such node."""
        return self.prompt.get(node_id, {}).get("class_type", "")

    def inputs(self, node_id: str) -> dict[str, Any]:
        """Returns the node's inputs by name: literals, and links as [id, slot]."""
        return self.prompt.get(node_id, {}).get("inputs", {})

    def link(self, node_id: str, name: str) -> Link | None:
        """Returns what feeds an input, past switches, reroutes and gates; None where nothing known does."""
        return self.through(as_link(self.inputs(node_id).get(name)))

    def through(self, link: Link | None) -> Link | None:
        """Returns the output that an output of a switch, a reroute or a gate hands on; any other output itself."""
        seen: set[Link] = set()
        while link is not None and link not in seen:
            seen.add(link)
            kind, inputs = self.kind(link[0]), self.inputs(link[0])
            if kind in SWITCHES:
                chosen = self.value(inputs.get("switch"))
                link = None if chosen == UNKNOWN else as_link(inputs.get("on_true" if chosen else "on_false"))
            elif self.output(link)[0] in ANY:
                types = self.input_types(link[0])
                feeding = [as_link(value) for name, value in inputs.items() if types.get(name, "*") in ANY]
                feeding = [value for value in feeding if value is not None]
                link = feeding[0] if len(feeding) == 1 else None
            else:
                return link
        return None

    def output(self, link: Link) -> tuple[str | None, str]:
        """Returns type and name of an output; None where ComfyUI does not know the node."""
        node = self._class(link[0])
        types = tuple(getattr(node, "RETURN_TYPES", ()))
        names = tuple(getattr(node, "RETURN_NAMES", None) or types)
        if link[1] >= len(types):
            return None, ""
        return str(types[link[1]]), str(names[link[1]]).lower() if link[1] < len(names) else ""

    def input_types(self, node_id: str) -> dict[str, str]:
        """Returns the types of a node's inputs by name; without inputs that it grows as it is connected."""
        node = self._class(node_id)
        if node is None:
            return {}
        known = node.INPUT_TYPES()
        entries = {**known.get("required", {}), **known.get("optional", {})}
        return {name: entry[0] if isinstance(entry[0], str) else "COMBO" for name, entry in entries.items()}

    def value(self, value: Any) -> Any:
        """Returns a literal, or what ComfyUI's own text, number and logic nodes make of literals; else UNKNOWN."""
        if not isinstance(value, list | tuple):
            return value
        link = self.through(as_link(value))
        node = None if link is None else self._class(link[0])
        if link is None or getattr(node, "RELATIVE_PYTHON_MODULE", None) not in _PURE:
            return UNKNOWN
        arguments: dict[str, Any] = {}
        for name, given in self.inputs(link[0]).items():
            known = self.value(given)
            if isinstance(known, str) and known == UNKNOWN and given != UNKNOWN:
                return UNKNOWN
            group, _, part = name.partition(".")
            if part:
                arguments.setdefault(group, {})[part] = known
            else:
                arguments[name] = known
        try:
            return node.execute(**arguments).result[link[1]]  # type: ignore[union-attr]
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            re.error,
        ):  # as the run itself does
            return UNKNOWN

    def upstream(self, node_id: str) -> Iterator[str]:
        """Yields a node and all that feed it, nearest first."""
        waiting, seen = deque([node_id]), {node_id}
        while waiting:
            number = waiting.popleft()
            if number not in self.prompt:
                continue
            yield number
            for value in self.inputs(number).values():
                link = as_link(value)
                if link is not None and link[0] not in seen:
                    seen.add(link[0])
                    waiting.append(link[0])

    def _class(self, node_id: str) -> Any:
        # in ComfyUI's own module of that name
        return import_module("nodes").NODE_CLASS_MAPPINGS.get(self.kind(node_id))


def as_link(value: Any) -> Link | None:
    """Returns a link as it stands in a queued workflow; None for anything else."""
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], int):
        return str(value[0]), value[1]
    return None
