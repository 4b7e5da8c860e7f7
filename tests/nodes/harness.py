"""The real ComfyUI in this process, on the CPU: its prompt check, its executor and its loader of node packs."""

import asyncio
import importlib
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import isolation, shim
from .installation import Installation
from .results import Event, Result, alone, readable

FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
NO_USE = "nodes_glsl.py"  # needs a screen


class Invalid(AssertionError):
    """ComfyUI would not take a pack."""


class Listener:
    """Stands where ComfyUI's server would, and keeps what it is told to send."""

    def __init__(self, replacements: Any, routes: Any):
        self.client_id: str | None = None
        self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata: dict[str, Any] = {}
        self.node_replace_manager = replacements
        self.routes = routes
        self.supports: list[str] = []
        self.events: list[Event] = []
        self.hears: Callable[[Any, Any], None] | None = None

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        self.events.append((event, data))
        if self.hears is not None:
            self.hears(event, data)

    def send_progress_text(self, text: Any, node_id: str, sid: str | None = None) -> None:
        self.send_sync("progress_text", {"text": text, "node": node_id})

    def add_on_prompt_handler(self, handler: Any) -> None:
        """Packs may ask; nothing is posted here."""


class Comfy:
    """One ComfyUI a process. The modules are at hand: nodes, execution, samplers, folder_paths, model_management."""

    def __init__(self, found: Installation, base: Path):
        self.base = base
        self.tree = found.tree
        for name in FOLDERS:
            (base / name).mkdir(parents=True, exist_ok=True)
        with isolation.undisturbed(), isolation.first_on_path(found.tree):
            shim.add(found.packages)
            self.start()
        self.fresh()

    def start(self) -> None:
        arguments = importlib.import_module("comfy.cli_args").args
        arguments.cpu = True  # before any other part of it is imported
        arguments.base_directory = str(self.base)
        self.folder_paths = importlib.import_module("folder_paths")
        self.nodes = importlib.import_module("nodes")
        self.execution = importlib.import_module("execution")
        self.samplers = importlib.import_module("comfy.samplers")
        self.model_management = importlib.import_module("comfy.model_management")
        server = importlib.import_module("server")
        replacements = importlib.import_module("app.node_replace_manager").NodeReplaceManager()
        routes = importlib.import_module("aiohttp.web").RouteTableDef()
        self.listener = server.PromptServer.instance = Listener(replacements, routes)
        asyncio.run(self.load_own_nodes())
        importlib.import_module("comfy.utils").set_progress_bar_global_hook(self.progress)

    async def load_own_nodes(self) -> None:
        await self.nodes.init_public_apis()
        load = self.nodes.load_custom_node

        async def most(path: str, *arguments: Any, **options: Any) -> bool:
            return path.endswith(NO_USE) or await load(path, *arguments, **options)

        self.nodes.load_custom_node = most
        try:
            await self.nodes.init_builtin_extra_nodes()
        finally:
            self.nodes.load_custom_node = load

    def load_pack(self, folder: Path, name: str) -> Any:
        """Links the folder into custom_nodes and loads it as ComfyUI does; its module."""
        link = self.base / "custom_nodes" / name
        if not link.exists():
            link.symlink_to(folder, target_is_directory=True)
        known = set(self.nodes.NODE_CLASS_MAPPINGS)
        with isolation.undisturbed(), isolation.first_on_path(self.tree), said() as lines:
            taken = asyncio.run(self.nodes.load_custom_node(str(link), known, "custom_nodes"))
        if not taken:
            raise Invalid(f"ComfyUI did not load {name}:\n" + "\n".join(lines))
        return importlib.import_module(str(link).replace(".", "_x_"))

    def fresh(self) -> None:
        """A new executor: nothing is remembered from earlier runs."""
        ram = {"ram": 0.0, "ram_inactive": 0.0, "lru": 0}
        self.executor = self.execution.PromptExecutor(
            self.listener, cache_type=self.execution.CacheType.CLASSIC, cache_args=ram
        )

    def interrupt(self) -> None:
        """Stops the run in progress at its next step; from another thread or from run's on_event."""
        self.model_management.interrupt_current_processing()

    def run(
        self,
        prompt: dict[str, Any],
        extra_data: dict[str, Any] | None = None,
        on_event: Callable[[Any, Any], None] | None = None,
    ) -> Result:
        """Checks and runs a prompt. on_event(name, data) hears each message to the frontend as it is sent."""
        self.listener.node_replace_manager.apply_replacements(prompt)
        identity = str(uuid.uuid4())
        with isolation.undisturbed():
            fine, error, wanted, complaints = asyncio.run(self.execution.validate_prompt(identity, prompt, None))
            if not fine:
                return Result(error=readable(error, complaints), invalid=complaints)
            self.listener.events, self.listener.hears = [], on_event
            self.listener.last_prompt_id = identity
            try:
                data = {"client_id": "tests", **(extra_data or {})}
                self.executor.execute(prompt, identity, data, wanted)
            finally:
                self.listener.hears = None
            return self.collect(prompt, complaints)

    def collect(self, prompt: dict[str, Any], complaints: dict[str, Any]) -> Result:
        result = Result(ui=self.executor.history_result["outputs"], events=self.listener.events, invalid=complaints)
        result.messages = list(self.executor.status_messages)
        result.error = result.failure()
        for identity in prompt:
            entry = asyncio.run(self.executor.caches.outputs.get(identity))
            if entry is not None:
                result.outputs[identity] = [alone(values) for values in entry.outputs]
        return result

    def progress(self, value: int, total: int, preview: Any, prompt_id: Any = None, node_id: Any = None) -> None:
        """As the server's own hook."""
        self.model_management.throw_exception_if_processing_interrupted()
        context = importlib.import_module("comfy_execution.utils").get_executing_context()
        node_id = node_id or (context.node_id if context else self.listener.last_node_id)
        state = importlib.import_module("comfy_execution.progress").get_progress_state()
        state.update_progress(node_id, value, total, preview)
        data = {"value": value, "max": total, "prompt_id": prompt_id or self.listener.last_prompt_id, "node": node_id}
        self.listener.send_sync("progress", data, self.listener.client_id)


@contextmanager
def said() -> Iterator[list[str]]:
    """What is logged meanwhile: ComfyUI logs why a pack failed, and goes on."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)
