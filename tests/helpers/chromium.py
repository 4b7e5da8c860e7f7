"""Headless Chromium for pages on disk, over its debugging pipe: opens them, asks them, clicks, photographs them."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .patience import PATIENCE

FLAGS = (
    "--headless=new --no-first-run --no-default-browser-check --disable-gpu --disable-dev-shm-usage --mute-audio"
    " --disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe"
).split()


def program() -> str | None:
    """Where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium(folder: Path) -> Iterator["Page"]:
    """One page of a browser with a profile of its own; killed at the end."""
    command = [program() or "chromium", *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium refuses to run as root with it
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def connect() -> None:
        """Chromium listens on 3 and answers on 4."""
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        for end, number in zip(high, (3, 4), strict=True):
            os.dup2(end, number)

    none = subprocess.DEVNULL
    process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=connect, stdout=none, stderr=none)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with open(ours_out, "wb") as to, open(ours_in, "rb") as back:
            yield Page(to, back)
    finally:
        process.kill()
        process.wait()


class Page:
    """The first page of a browser."""

    def __init__(self, to: Any, back: Any):
        self.to, self.back, self.numbers, self.events = to, back, itertools.count(1), []
        self.session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the debugging protocol; what happens meanwhile is kept in `events`."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        parts = []
        while (byte := self.back.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium hung up")
            parts.append(byte)
        return json.loads(b"".join(parts))

    def open(self, file: Path) -> None:
        """A file, until it has loaded."""
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if failed := answer.get("exceptionDetails"):
            raise RuntimeError(failed.get("exception", {}).get("description", failed["text"]))
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true in the page."""
        self.until(lambda: self.evaluate(f"Boolean({script})"), script)

    def until(self, happened: Callable[[], object], what: str = "it") -> None:
        """Until something is true; what the page tells meanwhile is heard."""
        until = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} did not come true")
            self.evaluate("new Promise(done => setTimeout(done, 20))")

    def asked_for(self) -> list[str]:
        """Addresses that the page asked for since it was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Errors and warnings since it was opened: thrown, logged, or refused by the page's policy."""
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"]["text"])
            if event.get("method") == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
        return found

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The window; and whether the system is in dark mode."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def photograph(self, file: Path) -> Path:
        """What the window shows, as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return file
