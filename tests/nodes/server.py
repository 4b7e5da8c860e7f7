"""ComfyUI's real server in a process of its own, and a small client for it."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..helpers.patience import PATIENCE
from .harness import FOLDERS
from .installation import Installation
from .results import Result, readable

HERE = Path(__file__).parent
FLAGS = ("--cpu", "--disable-api-nodes", "--disable-auto-launch", "--listen", "127.0.0.1")
LAST = {"execution_success", "execution_error", "execution_interrupted"}
END = 5.0


@contextmanager
def serving(found: Installation, base: Path, packs: dict[str, Path], flags: tuple[str, ...] = ()) -> Iterator["Server"]:
    """A server with these packs linked into custom_nodes, killed at the end whatever happens."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    for name, folder in packs.items():
        (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
    port = free_port()
    command = [sys.executable, HERE / "launch.py", found.tree, found.packages, *FLAGS, "--port", str(port)]
    command += ["--base-directory", base, "--database-url", f"sqlite:///{base / 'comfyui.db'}", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with open(base / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=base, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Server(base, port, process)
        server.wait_until_up()
        yield server
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def blocked(data: dict[str, Any]) -> bool:
    """Whether an error is one branch's only: ComfyUI sends it, and goes on."""
    return data.get("exception_type") == "ExecutionBlocked"


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Server:
    def __init__(self, base: Path, port: int, process: subprocess.Popen):
        self.base = base
        self.address = f"http://127.0.0.1:{port}"
        self.process = process

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    def wait_until_up(self) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended at its start:\n{self.log[-4000:]}")
            try:
                self.get("/queue")
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise TimeoutError(f"ComfyUI did not start in {PATIENCE:.0f} s:\n{self.log[-4000:]}")

    def imported(self, pack: str) -> tuple[float, bool]:
        """Seconds that ComfyUI says a pack took to import, and whether it could be."""
        found = re.search(rf"([\d.]+) seconds( \(IMPORT FAILED\))?: \S*/custom_nodes/{re.escape(pack)}\s", self.log)
        if found is None:
            raise LookupError(f"no import time of {pack}:\n{self.log[-4000:]}")
        return float(found[1]), found[2] is None

    def request(self, path: str, data: Any = None) -> bytes:
        """GET, or POST where there is data."""
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.request(path))

    def set(self, name: str, value: Any) -> None:
        """One of the frontend's settings."""
        self.request(f"/settings/{name}", value)

    def object_info(self, node: str) -> dict[str, Any]:
        return self.get(f"/object_info/{node}")[node]

    def templates(self) -> dict[str, list[str]]:
        """Pack name to the names of its workflows."""
        return self.get("/workflow_templates")

    def template(self, pack: str, name: str) -> dict[str, Any]:
        return self.get(f"/api/workflow_templates/{pack}/{urllib.parse.quote(name)}.json")

    def history(self, identity: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Of one prompt; it comes a moment after the prompt's last message."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := self.get(f"/history/{identity}"):
                return found[identity]
            time.sleep(0.05)
        raise TimeoutError(f"no history of {identity}")

    def fetch(self, file: dict[str, str]) -> bytes:
        """The content of a file that a node put out, as named in the history."""
        return self.request("/view?" + urllib.parse.urlencode(file))

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def post(self, prompt: dict[str, Any], client: str, extra_data: dict[str, Any] | None = None) -> dict[str, Any]:
        """The server's answer: prompt_id, or error and node_errors."""
        data = {"prompt": prompt, "client_id": client, "extra_data": extra_data or {}}
        try:
            return json.loads(self.request("/prompt", data))
        except urllib.error.HTTPError as refused:
            return json.loads(refused.read())

    def run(
        self,
        prompt: dict[str, Any],
        extra_data: dict[str, Any] | None = None,
        on_event: Callable[[Any, Any], None] | None = None,
        seconds: float = PATIENCE,
    ) -> Result:
        """Posts a prompt and follows it to its end; result.ui has what the nodes showed, outputs stay on the server."""
        return asyncio.run(asyncio.wait_for(self.follow(prompt, extra_data, on_event), seconds))

    async def follow(self, prompt: dict[str, Any], extra_data: Any, on_event: Any) -> Result:
        import aiohttp  # from the cache

        client = uuid.uuid4().hex
        result = Result()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.address}/ws?clientId={client}") as ws:
            answer = self.post(prompt, client, extra_data)
            result.invalid = answer.get("node_errors", {})
            if "error" in answer:
                result.error = readable(answer["error"], result.invalid)
                return result
            async for message in ws:
                if message.type != aiohttp.WSMsgType.TEXT:
                    result.events.append(("binary", message.data))
                    continue
                name, data = (json.loads(message.data)[key] for key in ("type", "data"))
                result.events.append((name, data))
                if on_event is not None:
                    on_event(name, data)
                if name in LAST and data.get("prompt_id") == answer["prompt_id"] and not blocked(data):
                    break
        return self.complete(result, answer["prompt_id"])

    def complete(self, result: Result, identity: str) -> Result:
        history = self.history(identity)
        result.ui = history["outputs"]
        result.messages = [(name, data) for name, data in history["status"]["messages"]]
        result.error = result.failure()
        return result
