"""ComfyUI's frontend in headless Chromium, over its debugging protocol: opens a workflow, runs it, photographs it."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..helpers.patience import PATIENCE
from .server import Server, end

FLAGS = (
    "--headless=new --no-first-run --no-default-browser-check --disable-gpu --disable-dev-shm-usage --mute-audio"
    " --disable-background-networking --disable-component-update --disable-sync --remote-debugging-port=0"
).split()
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Graph.CanvasInfo": False, "Comfy.Minimap.Visible": False}
ROOM = 60  # pixels around the graph
READY = "!!(window.app && app.graph && app.extensionManager && !document.querySelector('#splash-loader'))"
NODES = "app.graph ? app.graph._nodes.length : 0"
# Graph coordinates of all nodes and groups; titles stand above a node's own place.
BOUNDS = """(() => {
  const boxes = app.graph._nodes.map(n => [n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
    .concat((app.graph._groups || []).map(g => [g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]]));
  return [0, 1].map(i => Math.min(...boxes.map(b => b[i])))
    .concat([2, 3].map(i => Math.max(...boxes.map(b => b[i]))));
})()"""


class NoBrowser(Exception):
    """There is no Chromium; the message says so."""


@contextmanager
def browsing(server: Server, folder: Path, width: int = 1600, height: int = 1000) -> Iterator["Browser"]:
    """A browser without its first-run dialogs, at the server's address; killed at the end."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise NoBrowser("no chromium in PATH")
    for name, value in SETTINGS.items():
        server.set(name, value)
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium refuses to run as root with it
    with open(folder / "chromium.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with closing(Browser(server, page_address(folder, process))) as browser:
            browser.resize(width, height)
            yield browser
    finally:
        end(process)


def page_address(folder: Path, process: subprocess.Popen) -> str:
    """Of the page's websocket; Chromium writes its free port into the profile."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            port = (folder / "DevToolsActivePort").read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
                return next(page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page")
        except (OSError, IndexError, StopIteration):
            time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start:\n{(folder / 'chromium.log').read_text(errors='replace')[-2000:]}")


class Browser:
    """One page, over one connection: Chromium forgets the page's size with it."""

    def __init__(self, server: Server, address: str):
        import aiohttp  # from the cache

        self.server = server
        self.loop = asyncio.new_event_loop()
        self.numbers = itertools.count(1)

        async def connect() -> Any:
            self.session = aiohttp.ClientSession()
            return await self.session.ws_connect(address, max_msg_size=0)

        self.socket = self.loop.run_until_complete(connect())

    def close(self) -> None:
        self.loop.run_until_complete(self.session.close())
        self.loop.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the debugging protocol."""
        asked = self.asked({"id": next(self.numbers), "method": method, "params": parameters})
        return self.loop.run_until_complete(asyncio.wait_for(asked, PATIENCE))

    async def asked(self, command: dict[str, Any]) -> dict[str, Any]:
        await self.socket.send_json(command)
        async for message in self.socket:
            answer = json.loads(message.data)
            if answer.get("id") == command["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{command['method']}: {answer['error']['message']}")
                return answer["result"]
        raise RuntimeError(f"{command['method']}: Chromium hung up")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if failed := answer.get("exceptionDetails"):
            raise RuntimeError(failed.get("exception", {}).get("description", failed["text"]))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> None:
        """Until an expression is true in the page."""
        self.until(lambda: self.evaluate(script), f"{script}\n{self.words()[:1000]}", seconds)

    def until(self, done: Callable[[], Any], what: str, seconds: float) -> None:
        end_at = time.monotonic() + seconds
        while time.monotonic() < end_at:
            try:
                if done():
                    return
            except RuntimeError:  # the page is being replaced
                pass
            time.sleep(0.1)
        raise TimeoutError(f"not within {seconds:.0f} s: {what}")

    def words(self) -> str:
        """What the page says, dialogs included."""
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def open(self, query: dict[str, str] | None = None) -> None:
        """The frontend, until it is ready."""
        self.call("Page.navigate", url=f"{self.server.address}/?{urllib.parse.urlencode(query or {})}")
        self.wait(f"location.port === '{self.server.address.rsplit(':')[-1]}' && {READY}")

    def open_template(self, pack: str, name: str) -> None:
        """As a click in the template browser does, until its nodes are there; an address can name no sentence."""
        self.open()
        place = f"api.apiURL('/workflow_templates/{pack}/{urllib.parse.quote(name)}.json')"
        load = f"(api => fetch({place}))(app.api ?? window.comfyAPI.api.api).then(answer => answer.json())"
        self.evaluate(f"{load}.then(graph => app.loadGraphData(graph, true, true, {json.dumps(name)})).then(() => 0)")
        wanted = len(self.server.template(pack, name)["nodes"])
        self.wait(f"{NODES} === {wanted}")
        self.settle()

    def pick_template(self, pack: str, name: str) -> None:
        """By clicks: the template browser, the pack's part of it, and the card of that name."""
        self.open()
        self.evaluate("void app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        leaf = "[...document.querySelectorAll('[role=dialog] *')].find(one => !one.children.length && "
        self.click(f"{leaf}one.textContent.trim() === {json.dumps(pack)})")
        card = json.dumps(f"[data-testid='template-workflow-{name}']")
        self.click(f"document.querySelector({card})")

    def click(self, element: str) -> None:
        """An element of the page, once it is there."""
        self.wait(f"(found => found && (found.click(), true))({element})")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.settle()

    def settle(self, seconds: float = 0.7) -> None:
        """Widgets and fonts come a moment after the nodes."""
        time.sleep(seconds)

    def queue(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Queues the workflow as the Run button does; its history once it has ended."""
        before = set(self.server.get("/history"))
        if self.evaluate("app.queuePrompt(0)") is False:
            raise RuntimeError(f"ComfyUI refused the workflow: {self.complaints()}")
        fresh: set[str] = set()
        self.until(lambda: fresh.update(set(self.server.get("/history")) - before) or fresh, self.words(), seconds)
        self.settle()
        return self.server.history(fresh.pop())

    def complaints(self) -> str:
        return json.dumps(self.evaluate("app.lastNodeErrors")) + "\n" + self.words()[:1000]

    def photograph(self, file: Path, scale: float = 1.0) -> Path:
        """The whole graph as PNG, at this many pixels a unit, without the frontend's bars."""
        self.evaluate("app.extensionManager.focusMode = true")
        left, top, right, bottom = self.evaluate(BOUNDS)
        width, height = (round(length * scale) + 2 * ROOM for length in (right - left, bottom - top))
        size = {"width": width + 2 * ROOM, "height": height + 4 * ROOM}  # the menu stays at the top
        self.resize(**size)
        x, y = self.place(left, top, scale)
        clip = {"x": x - ROOM / 2, "y": y - ROOM / 2, "width": width - ROOM, "height": height - ROOM, "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", clip=clip)["data"]
        file.write_bytes(base64.b64decode(picture))
        return file

    def place(self, left: float, top: float, scale: float) -> tuple[float, float]:
        """Moves the graph below the menu; where its corner is then on the page."""
        offset = f"[{ROOM}/{scale} - {left}, 2*{ROOM}/{scale} - {top}]"
        move = f"app.canvas.ds.scale = {scale}; app.canvas.ds.offset = {offset}; app.canvas.setDirty(true, true);"
        read = "const box = app.canvas.canvas.getBoundingClientRect(); return [box.left, box.top];"
        corner = self.evaluate(f"(() => {{ {move} {read} }})()")
        self.settle()
        return corner[0] + ROOM, corner[1] + 2 * ROOM
