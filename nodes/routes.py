"""HTTP routes under /cryptomnesia/, for programs that drive ComfyUI and for the pack's own page.

They answer JSON, keep to the nodes' limits, and read ComfyUI's own folders alone. A check is queued as a workflow of
the pack's nodes, so that it waits its turn, shows progress and can be interrupted like any other.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths

from ..guard.calibration import Calibration
from ..guard.errors import CryptomnesiaError, InputError
from ..guard.files import require_file_name
from ..guard.printable import first_line, printable
from ..guard.sidecar import Checker, file_sha256
from ..guard.sidecar.keys import STORE, setting, trusted
from . import calibrations, folder
from .host_files import inside

PREFIX = "/cryptomnesia"
BUILT_IN = "built-in"
TABLE = "CryptomnesiaMemorizationTable"
MOST_PIXELS = 16_384
SAME_NAME = 100  # files that are looked at
Answer = dict[str, Any]


def register() -> None:
    """Adds the routes to ComfyUI's server; does nothing where there is none."""
    from aiohttp import web
    from server import PromptServer

    routes = getattr(getattr(PromptServer, "instance", None), "routes", None)
    # a second copy of the pack adds none: ComfyUI would not start with two of a name
    if routes is None or any(getattr(route, "path", "").startswith(f"{PREFIX}/") for route in routes):
        return

    def answering(work: Callable[[Any], Awaitable[Answer]]) -> Callable[[Any], Awaitable[Any]]:
        async def handle(request: Any) -> Any:
            try:
                return web.json_response(await work(request))
            except CryptomnesiaError as error:
                return web.json_response({"error": first_line(error, 400)}, status=400)

        return handle

    routes.get(f"{PREFIX}/calibrations")(answering(_calibrations))
    routes.post(f"{PREFIX}/verify")(answering(_verify))
    routes.post(f"{PREFIX}/check")(answering(_check))
    routes.get(f"{PREFIX}/check/{{prompt_id}}")(answering(_result))


async def _calibrations(_: Any) -> Answer:
    """Answers which calibrations there are, and in which folder."""
    return await asyncio.to_thread(known_calibrations)


def known_calibrations() -> Answer:
    """Returns ComfyUI's folder of calibrations, and what each file there was made for."""
    listed = []
    for name in folder.names(calibrations.ENDING):
        try:
            made = Calibration.load(folder.path_of(name))
        except (CryptomnesiaError, FileNotFoundError) as error:
            listed.append({"name": name, "error": first_line(error)})
            continue
        facts = {"prompts": made.n, "draws": made.draws, "alpha": made.alpha, "threshold": made.threshold}
        listed.append({"name": name, "fingerprint": made.fingerprint, "latent_shape": list(made.latent_shape), **facts})
    return {"folder": str(folder.new_file("x", calibrations.ENDING).parent), "calibrations": listed}


async def _verify(request: Any) -> Answer:
    """Answers whether a saved image still fits its provenance file: {"filename", "subfolder", "type"}, as /view; or
    {"filename", "sha256"} for whichever file of that name and content lies in the output folder."""
    asked = await _body(request)
    if "sha256" in asked:
        path = await asyncio.to_thread(found_again, _text(asked, "filename"), _text(asked, "sha256"))
        return await asyncio.to_thread(_verified, path)
    name = str(Path(_text(asked, "subfolder", ""), _text(asked, "filename")))
    path = inside(name, _text(asked, "type", "output"))
    return await asyncio.to_thread(_verified, path)


def _verified(path: Path) -> Answer:
    """As the node Verify Provenance answers."""
    with Checker(trust=trusted(), store=setting(STORE)) as checker:
        result = checker.verify(path)
    return result.to_dict() | {"headline": result.headline}


def found_again(name: str, sha256: str) -> Path:
    """Returns the file of that name and content in the output folder, at any depth. Raises InputError for none."""
    try:
        plain = require_file_name(name)
    except ValueError as error:
        raise InputError(f'"{printable(name, 80)}" is no file name: {error}') from error
    root = Path(folder_paths.get_output_directory())
    # not as a pattern: names may hold its signs
    for path in islice((path for path in root.rglob("*") if path.name == plain), SAME_NAME):
        inner = inside(str(path.relative_to(root)), "output")
        if inner.is_file() and file_sha256(inner) == sha256.lower():
            return inner
    raise InputError("no image of that name and content lies in ComfyUI's output folder")


async def _check(request: Any) -> Answer:
    """Queues a check: {"prompts": [...], "checkpoint", "width", "height", "calibration"}; answers its prompt_id."""
    from server import PromptServer

    prompt = workflow_of(await _body(request))
    queue = next(
        (route.handler for route in PromptServer.instance.routes if (route.method, route.path) == ("POST", "/prompt")),
        None,
    )
    if queue is None:
        raise InputError("this ComfyUI has no queue that the pack knows: use its own /prompt")

    async def body() -> Any:
        return {"prompt": prompt}

    # ComfyUI's own way of taking a workflow, with its checks
    answer = await queue(SimpleNamespace(json=body, headers={}))
    said = json.loads(answer.text)
    if "prompt_id" not in said:
        reasons = [one["details"] for node in said.get("node_errors", {}).values() for one in node.get("errors", [])]
        raise InputError("; ".join(reasons) or str(said.get("error", "ComfyUI refused the check")))
    return {"prompt_id": said["prompt_id"]}


def workflow_of(asked: Answer) -> dict[str, Any]:
    """Returns the workflow of a check. Raises InputError for what is asked wrongly; names are checked by ComfyUI."""
    prompts = asked.get("prompts")
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise InputError('a check takes {"prompts": ["...", ...]}, a list of texts')
    name = _text(asked, "checkpoint", BUILT_IN)
    size = 64 if name == BUILT_IN else 512
    sides = {side: asked.get(side, size) for side in ("width", "height")}
    if any(
        not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_PIXELS
        for value in sides.values()
    ):
        raise InputError(f"width and height are pixels, 1 to {MOST_PIXELS}")
    loader = ("CheckpointLoaderSimple", {"ckpt_name": name})
    if name == BUILT_IN:
        loader = ("CryptomnesiaLoadDemoModel", {"checkpoint": "final"})
    inputs: dict[str, Any] = {"model": ["load", 0], "clip": ["load", 1], "latent": ["latent", 0], "file": ""}
    inputs |= {"prompts": "\n".join(" ".join(text.split()) for text in prompts), "filename_prefix": ""}
    inputs |= {"calibration": _text(asked, "calibration", calibrations.AUTOMATIC), "check_seed": 0}
    return {
        "load": {"class_type": loader[0], "inputs": loader[1]},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {**sides, "batch_size": 1}},
        "table": {"class_type": TABLE, "inputs": inputs},
    }


async def _result(request: Any) -> Answer:
    """Answers how a check stands: {"state": "waiting" | "done" | "failed", "rows" or "error"}."""
    from server import PromptServer

    prompt_id = str(request.match_info["prompt_id"])
    found = PromptServer.instance.prompt_queue.get_history(prompt_id=prompt_id).get(prompt_id)
    if found is None:
        queued = [item for part in PromptServer.instance.prompt_queue.get_current_queue() for item in part]
        if not any(item[1] == prompt_id for item in queued):
            raise InputError("no check of that name is queued or remembered")
        return {"state": "waiting"}
    rows = found["outputs"].get("table", {}).get("cryptomnesia_rows")
    if rows is not None:
        return {"state": "done", "rows": rows}
    messages = dict(found.get("status", {}).get("messages", []))
    return {
        "state": "failed",
        "error": str(messages.get("execution_error", {}).get("exception_message", "interrupted")),
    }


async def _body(request: Any) -> Answer:
    try:
        body = await request.json()
    except ValueError as error:
        raise InputError("the request holds no JSON") from error
    if not isinstance(body, dict):
        raise InputError("the request is no JSON object")
    return body


def _text(asked: Answer, name: str, default: str | None = None) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{name} is a text")
    return value
