"""What the workflow itself says: texts, model files and sampler settings upstream of a node."""

from collections import deque
from collections.abc import Iterator
from typing import Any

Prompt = dict[str, Any]  # node id -> {"class_type", "inputs"}, as queued


def text_behind(node: Any, name: str) -> str | None:
    """The text that feeds an input of the running node, if it is a literal in the workflow.

    Args:
        node: The node's class while it runs, with hidden prompt and unique_id.
        name: Of the input.
    """
    hidden = getattr(node, "hidden", None)
    if hidden is None or not hidden.prompt:
        return None
    return find_text(hidden.prompt, str(hidden.unique_id), name)


def find_text(prompt: Prompt, node_id: str, name: str) -> str | None:
    """The nearest text upstream of an input."""
    link = prompt.get(node_id, {}).get("inputs", {}).get(name)
    if isinstance(link, str):
        return link
    if not _is_link(link):
        return None
    for _, _, inputs in upstream(prompt, str(link[0])):
        for key in ("text", "prompt", "text_g", "clip_l", "value", "string"):
            if isinstance(inputs.get(key), str):
                return inputs[key]
    return None


def upstream(prompt: Prompt, node_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(id, class, inputs) of a node and of all that feed it, nearest first."""
    waiting, seen = deque([node_id]), {node_id}
    while waiting:
        number = waiting.popleft()
        node = prompt.get(number)
        if node is None:
            continue
        inputs = node.get("inputs", {})
        yield number, node.get("class_type", ""), inputs
        for value in inputs.values():
            if _is_link(value) and str(value[0]) not in seen:
                seen.add(str(value[0]))
                waiting.append(str(value[0]))


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)
