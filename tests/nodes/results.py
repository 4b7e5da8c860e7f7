"""What a prompt is made of, and what came of it: in this process or on a server."""

from dataclasses import dataclass, field
from typing import Any

Event = tuple[Any, Any]


@dataclass
class Result:
    """What came of a prompt. outputs: node id to the list of its outputs; ui: node id to what the frontend is sent."""

    outputs: dict[str, list[Any]] = field(default_factory=dict)
    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    error: str | None = None
    invalid: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.error is None and not self.interrupted

    @property
    def interrupted(self) -> bool:
        return any(name == "execution_interrupted" for name, _ in self.messages)

    @property
    def cached(self) -> set[str]:
        """Nodes that were not run again."""
        return {node for name, data in self.messages if name == "execution_cached" for node in data["nodes"]}

    def failure(self) -> str | None:
        failed = next((data for name, data in self.messages if name == "execution_error"), None)
        return failed and f"{failed['node_type']} {failed['node_id']}: {failed['exception_message'].strip()}"

    def named(self, name: str) -> list[Any]:
        """The data of all events of that name."""
        return [data for event, data in self.events if event == name]


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    """One entry of a prompt; an input ["3", 0] is the first output of node 3."""
    return {"class_type": class_type, "inputs": inputs}


def alone(values: list[Any]) -> Any:
    """ComfyUI keeps a list for each output, mostly of one."""
    return values[0] if len(values) == 1 else values


def readable(error: dict[str, Any], complaints: dict[str, Any]) -> str:
    lines = [f"{error['message']}: {error['details']}".rstrip(": ")]
    for identity, complaint in complaints.items():
        for reason in complaint["errors"]:
            lines.append(f"{complaint['class_type']} {identity}: {reason['message']}: {reason['details']}")
    return "\n".join(lines)
